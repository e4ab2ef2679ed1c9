// Where each number of an array is drawn: tiles in whole rows, and the way back from a place.

import {flat, kernelFlat, kernelPlace, place} from "./frame.js";

const SHORT = 64;  // numbers of a vector that are drawn as large cells

// How an array is cut into tiles of height x width; `major` tiles stand below each other in
// a block, `minor` beside each other. `at` and `of` lead from tile and place to index and back.
export function cut(frame, name) {
  const array = frame.arrays[name] || {shape: [1], data: [frame.loss]}, {shape} = array;
  if (/kernels/.test(name)) {
    const [minor, major, height, width] = shape;
    return {
      major, minor, height, width, data: array.data,
      at: (channel, filter, row, column) => kernelFlat([filter, channel, row, column], shape),
      of: (index) => { const [f, c, row, column] = kernelPlace(index, shape); return [c, f, row, column]; },
    };
  }
  if (/W_dense/.test(name)) {
    const k = frame.steps.findIndex((step) => step.kind === "flatten"), maps = frame.steps[k - 1].shape;
    const [height, width, minor] = maps, classes = shape[1];
    return {
      major: classes, minor, height, width, data: array.data,
      at: (n, channel, row, column) => flat([row, column, channel], maps) * classes + n,
      of: (index) => {
        const [row, column, channel] = place(Math.floor(index / classes), maps);
        return [index % classes, channel, row, column];
      },
    };
  }
  if (shape.length === 3) {
    const [height, width, minor] = shape;
    return {
      major: 1, minor, height, width, data: array.data,
      at: (_, channel, row, column) => flat([row, column, channel], shape),
      of: (index) => { const [row, column, channel] = place(index, shape); return [0, channel, row, column]; },
    };
  }
  const [count] = shape;  // A vector; each number is a tile.
  return {
    major: 1, minor: count, height: 1, width: 1, data: array.data, vector: true, large: count <= SHORT,
    at: (_, index) => index, of: (index) => [0, index, 0, 0],
  };
}

// As many tiles in a row as fit, in whole rows where that is not much fewer.
function wholeRows(count, fit) {
  if (count <= fit) return count;
  for (let columns = fit; 2 * columns > fit; columns--) if (count % columns === 0) return columns;
  return Math.max(1, fit);
}

// Where the tiles are, in CSS pixels: with `scale` pixels a number, in `width` pixels.
export function layOut(tiles, scale, width) {
  const gap = tiles.vector ? (tiles.large ? 2 : 0) : scale > 1 ? 3 : 1;
  // Tiles that would stand in one column can as well stand beside each other.
  const [major, minor] = tiles.minor === 1 && !tiles.vector ? [1, tiles.major] : [tiles.major, tiles.minor];
  const turned = major !== tiles.major;
  const across = tiles.width * scale + gap, down = tiles.height * scale + gap;
  const columns = wholeRows(minor, Math.max(1, Math.floor((width + gap) / across)));
  const blocks = Math.ceil(minor / columns);
  const corner = (m, n) => {
    if (turned) [m, n] = [n, m];
    const block = Math.floor(n / columns);
    return [(n % columns) * across, (block * major + m) * down];
  };
  return {
    ...tiles, scale, gap, across, down, corner,
    width: columns * across - gap, heightAll: blocks * major * down - gap,
    rectOf(index) {
      const [m, n, row, column] = tiles.of(index), [x, y] = corner(m, n);
      return [x + column * scale, y + row * scale, scale, scale];
    },
    indexAt(x, y) {
      const n = Math.floor(x / across), line = Math.floor(y / down);
      let [m, k] = [line % major, Math.floor(line / major) * columns + n];
      if (n < 0 || n >= columns || line < 0 || k >= minor || m < 0) return null;
      if (turned) [m, k] = [k, m];
      const row = Math.floor((y - line * down) / scale), column = Math.floor((x - n * across) / scale);
      if (row >= tiles.height || column >= tiles.width) return null;  // Between tiles.
      return tiles.at(m, k, row, column);
    },
    cellWidth: tiles.width, cellHeight: tiles.height,
  };
}

// The same tiles, but for one of the `minor` ones alone.
export function only(tiles, minor) {
  return {
    ...tiles, minor: 1, at: (m, n, row, column) => tiles.at(m, minor, row, column),
    of: (index) => { const [m, , row, column] = tiles.of(index); return [m, 0, row, column]; },
    shows: (index) => tiles.of(index)[1] === minor,
  };
}

// ---------------------------------------------------------------- Colours

// 511 colours from the most negative number over zero, which is paper, to the most positive.
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const [minus, zero, plus] = ["--minus", "--zero", "--plus"].map((name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
  });
  return Uint32Array.from({length: 511}, (_, level) => {
    const share = (level - 255) / 255, end = share < 0 ? minus : plus;
    const [r, g, b] = zero.map((from, part) => Math.round(from + (end[part] - from) * Math.abs(share) ** 0.7));
    return (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  });
}

export function largestOf(data) {
  let largest = 0;
  for (const value of data) if (Math.abs(value) > largest) largest = Math.abs(value);
  return largest;
}

const atlas = document.createElement("canvas");

// Paint the tiles of a layout, each number as a square of its colour.
export function paint(canvas, layout, largest, colours, ratio) {
  const {major, minor, cellHeight: height, cellWidth: width, data} = layout;
  const pen = sized(canvas, layout.width, layout.heightAll, ratio);
  atlas.width = Math.max(1, minor * width);
  atlas.height = Math.max(1, major * height);
  const drawn = atlas.getContext("2d", {willReadFrequently: true});
  const image = drawn.createImageData(atlas.width, atlas.height), pixels = new Uint32Array(image.data.buffer);
  const factor = largest ? 255 / largest : 0;
  for (let m = 0; m < major; m++)
    for (let n = 0; n < minor; n++)
      for (let row = 0; row < height; row++)
        for (let column = 0; column < width; column++) {
          const level = 255 + Math.round(factor * data[layout.at(m, n, row, column)]);
          pixels[(m * height + row) * atlas.width + n * width + column] = colours[level] ?? 0xffff00ff;
        }
  drawn.putImageData(image, 0, 0);
  if (!layout.vector) {  // What is between the tiles is no number.
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--gap");
    pen.fillRect(0, 0, layout.width, layout.heightAll);
  }
  pen.imageSmoothingEnabled = false;
  for (let m = 0; m < major; m++)
    for (let n = 0; n < minor; n++) {
      const [x, y] = layout.corner(m, n);
      pen.drawImage(atlas, n * width, m * height, width, height, x, y, width * layout.scale, height * layout.scale);
    }
  return pen;
}

// A canvas of so many CSS pixels, sharp on any screen; what was on it is gone.
export function sized(canvas, width, height, ratio) {
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    [canvas.width, canvas.height] = [w, h];
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}
