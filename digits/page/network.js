// The network as rows from the image down to the loss, one a step, each on a canvas of its
// own; another canvas above it has the highlights, and lines join the rows.

import {flat, place} from "./frame.js";
import {nameOf, number} from "./panel.js";
import {cut, largestOf, layOut, only, paint, palette, sized} from "./tiles.js";

const TALLEST = 200;    // pixels of all kernels of a layer; beyond, those of one map are shown
const ALL_MAPS = 420;   // pixels of all maps, to which the scale is chosen
const SVG = "http://www.w3.org/2000/svg";

export class Network {
  // `handle` has `point(cell)`, `pin(cell)`, `enter(row)` and `key(event, row)`.
  constructor(root, handle) {
    Object.assign(this, {root, handle, rows: [], shown: null, frame: null});
    this.lines = document.createElementNS(SVG, "svg");
    this.lines.setAttribute("aria-hidden", "true");
    // Rows that nobody sees are painted when they come into view.
    this.seen = new IntersectionObserver((entries) => {
      for (const {target, isIntersecting} of entries) {
        const row = this.rows.find(({figure}) => figure === target);
        if (row) row.visible = isIntersecting;
        if (row?.waits && isIntersecting) this.paintRow(row);
      }
    }, {rootMargin: "100px"});
  }

  // Show a frame, "forward" or "back"; rows are built anew only for another network or width.
  show(frame, mode) {
    const ratio = window.devicePixelRatio || 1, width = this.root.clientWidth;
    const plan = JSON.stringify([frame.steps, mode, width, ratio, frame.model.dtype]);
    this.frame = frame;
    if (plan !== this.plan) {
      this.plan = plan;
      Object.assign(this, {ratio, width});
      this.build(mode);
    }
    this.draw();
  }

  build(mode) {
    const back = mode === "back", {frame} = this, list = [];
    const add = (name, title, extra = {}) => list.push({name, title, ...extra});
    const d = (name) => back ? "d." + name : name, by = back ? "derivatives: " : "";
    frame.steps.forEach((step, k) => {
      const values = back && step.kind !== "softmax" ? `d.${k}` : `step.${k}`;
      const size = step.shape.join("x");
      if (step.kind === "convolution")
        add(d(`kernels.${step.index}`), `${by}kernels of ${step.token}`, {kernels: true, user: values});
      if (step.kind === "ReLU") add(d(`biases.${step.index}`), `${by}biases of ${step.token}`);
      if (step.kind === "pooling")
        add(`step.${k - 1}`, "winners: where the maxima of the windows stood", {mask: k});
      if (step.kind === "scores") {
        add(d("W_dense"), `${by}weights, one row a class`, {kernels: true});
        add(d("B_dense"), `${by}biases`);
      }
      add(values, `${step.kind === "softmax" ? "" : by}${step.title}`, {size, maps: step.shape.length === 3});
    });
    add("loss", "loss");
    const heightOf = (scale) => list.filter(({maps}) => maps).reduce((sum, {name}) =>
      sum + layOut(cut(frame, name), scale, this.width).heightAll, 0);
    this.scale = [4, 3].find((scale) => heightOf(scale) <= ALL_MAPS) || 2;
    const focused = this.rows.findIndex(({canvas}) => canvas === document.activeElement);
    this.seen.disconnect();
    this.rows = list.map((row) => this.makeRow(row));
    for (const {figure} of this.rows) this.seen.observe(figure);
    this.root.replaceChildren(...this.rows.map(({figure}) => figure), this.lines);
    this.rows[focused]?.canvas.focus();
  }

  makeRow(row) {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    const stack = document.createElement("div"), canvas = document.createElement("canvas");
    const over = document.createElement("canvas");
    stack.className = "stack";
    over.className = "over";
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    over.setAttribute("aria-hidden", "true");
    stack.append(canvas, over);
    figure.append(caption, stack);
    const made = {...row, figure, caption, canvas, over, cell: null, visible: true, waits: false};
    const cellAt = (event) => {
      const box = canvas.getBoundingClientRect();
      const index = made.layout.indexAt(event.clientX - box.left, event.clientY - box.top);
      return index === null ? null : {name: row.name, index};
    };
    canvas.addEventListener("pointermove", (event) => {
      const cell = event.pointerType === "touch" ? null : cellAt(event);
      if (cell) this.handle.point(cell);
    });
    canvas.addEventListener("pointerleave", () => this.handle.point(null));
    canvas.addEventListener("click", (event) => {
      const cell = cellAt(event);
      if (cell) this.handle.pin(cell);
    });
    canvas.addEventListener("focus", () => this.handle.enter(made));
    canvas.addEventListener("keydown", (event) => this.handle.key(event, made));
    return made;
  }

  // The tiles of a row; of many kernels, those of the chosen map.
  tilesOf(row) {
    let tiles = cut(this.frame, row.name), scale = this.scale, note = "";
    if (row.mask) tiles = {...tiles, data: maskOf(this.frame, row.mask)};
    if (tiles.vector) scale = tiles.large ? (tiles.minor <= 16 ? 30 : 14) : 4;
    if (row.kernels) {
      const fits = (s) => {
        const {width, heightAll} = layOut(tiles, s, this.width);
        return heightAll <= TALLEST && width <= this.width;
      };
      scale = [5, 4, 3, 2, 1].find(fits);
      if (!scale) {
        const map = Math.min(row.chosen ?? 0, tiles.minor - 1);
        tiles = only(tiles, map);
        note = ` (of ${/W_dense/.test(row.name) ? "the weights, those from" : "these, those of"} map ${map})`;
        scale = [4, 3, 2].find((s) => layOut(tiles, s, this.width).heightAll <= TALLEST) || 2;
      }
    }
    return {layout: layOut(tiles, scale, this.width), note};
  }

  draw() {
    this.colours ??= palette();
    for (const row of this.rows) {
      const {data} = this.frame.arrays[row.name] || {};
      if (data && row.painted === data && row.paintedFor === row.chosen) continue;  // Of parameters.
      Object.assign(row, {painted: row.mask ? null : data, paintedFor: row.chosen});
      const {layout, note} = this.tilesOf(row), same = row.layout?.heightAll === layout.heightAll;
      Object.assign(row, {layout, note});
      // A canvas of another size moves all others.
      if (row.visible || !same) this.paintRow(row); else row.waits = true;
    }
    if (this.shown) this.highlight(...this.shown);
  }

  paintRow(row) {
    const {layout, note} = row, largest = row.name === "loss" ? this.frame.loss : largestOf(layout.data);
    row.waits = false;
    const pen = paint(row.canvas, layout, largest, this.colours ??= palette(), this.ratio);
    sized(row.over, layout.width, layout.heightAll, this.ratio);
    if (layout.large && layout.minor <= 16) this.writeCells(pen, row);
    const scale = row.mask ? "" : row.name === "loss" ? number(this.frame.loss, this.frame) :
      `paper is 0, the strongest colours ±${Number(largest.toPrecision(3))}`;
    row.caption.replaceChildren(text(row.title + note), ...(row.size ? [text(row.size, "size")] : []),
      ...(scale ? [text(scale, "scale")] : []));
    row.canvas.setAttribute("aria-label", `${row.title}${note} ${row.size || ""}. ${scale}`);
  }

  // The class below its score and probability, and a sign, which colour alone would not tell.
  writeCells(pen, row) {
    const style = getComputedStyle(document.documentElement), {layout} = row;
    pen.font = "600 11px system-ui, sans-serif";
    pen.textAlign = "center";
    for (let index = 0; index < layout.minor; index++) {
      const [x, y, side] = layout.rectOf(index), value = layout.data[index];
      pen.strokeStyle = style.getPropertyValue("--line");
      pen.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
      pen.fillStyle = style.getPropertyValue("--paper");
      pen.globalAlpha = 0.75;
      pen.fillRect(x + 3, y + side / 2 - 7, side - 6, 14);
      pen.globalAlpha = 1;
      pen.fillStyle = style.getPropertyValue("--ink");
      const label = row.name === "loss" ? "loss" : `${index}${value < 0 ? " −" : value > 0 ? " +" : ""}`;
      pen.fillText(label, x + side / 2, y + side / 2 + 4);
    }
  }

  // Mark a number and what it was made of: `sources` are sets of indices, by array.
  highlight(cell, sources) {
    this.shown = [cell, sources];
    const style = getComputedStyle(document.documentElement);
    const [chosen, source] = ["--chosen", "--source"].map((name) => style.getPropertyValue(name).trim());
    const boxes = [];
    let from = null;
    for (const row of this.rows) {
      const {layout, over} = row, pen = sized(over, layout.width, layout.heightAll, this.ratio);
      const marked = row.mask ? new Set() : sources.get(row.name) || new Set(), tiles = new Map();
      pen.fillStyle = source;
      for (const index of marked) {
        if (layout.shows && !layout.shows(index)) continue;
        const [x, y, side] = layout.rectOf(index), [m, n] = layout.of(index), key = m * layout.minor + n;
        const box = tiles.get(key) || [Infinity, Infinity, 0, 0];
        tiles.set(key, [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x + side), Math.max(box[3], y + side)]);
        pen.globalAlpha = 0.35;
        pen.fillRect(x, y, side, side);
      }
      pen.globalAlpha = 1;
      pen.strokeStyle = source;
      pen.lineWidth = 1.5;
      for (const [left, top, right, bottom] of tiles.values())
        pen.strokeRect(left - 0.75, top - 0.75, right - left + 1.5, bottom - top + 1.5);
      if (tiles.size) boxes.push({row, box: bounds([...tiles.values()])});
      if (cell && row.name === cell.name && !row.mask && !(layout.shows && !layout.shows(cell.index))) {
        const [x, y, side] = layout.rectOf(cell.index);
        pen.strokeStyle = chosen;
        pen.lineWidth = 2;
        pen.strokeRect(x - 1, y - 1, side + 2, side + 2);
        row.cell = cell.index;
        from = {row, box: [x, y, x + side, y + side]};
      }
    }
    this.drawLines(from, boxes, source);
  }

  // Two lines from the number to the edges of each row's sources.
  drawLines(from, boxes, colour) {
    const root = this.root.getBoundingClientRect();
    this.lines.setAttribute("width", this.root.clientWidth);
    this.lines.setAttribute("height", this.root.scrollHeight);
    const sidesOf = ({row, box}) => {
      const at = row.canvas.getBoundingClientRect();
      return {left: at.left - root.left + box[0], right: at.left - root.left + box[2],
        top: at.top - root.top + box[1], bottom: at.top - root.top + box[3]};
    };
    if (!from) return this.lines.replaceChildren();
    const start = sidesOf(from), drawn = [];
    for (const place of boxes) {
      const end = sidesOf(place), above = end.top < start.top;
      for (const side of ["left", "right"]) {
        const line = document.createElementNS(SVG, "line");
        const ends = {x1: start[side], y1: above ? start.top : start.bottom, x2: end[side], y2: above ? end.bottom : end.top};
        for (const [key, value] of Object.entries({...ends, stroke: colour})) line.setAttribute(key, value);
        drawn.push(line);
      }
    }
    this.lines.replaceChildren(...drawn);
  }

  // Where the arrows lead from a number of a row: inside of its tile, or to another tile.
  move(row, index, key) {
    const {layout} = row, [m, n, r, c] = layout.of(index), {cellHeight, cellWidth} = layout;
    const near = (value, count) => Math.min(Math.max(value, 0), count - 1);
    const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[key];
    if (layout.vector) {
      const by = steps ? steps[0] + steps[1] : key === "PageDown" ? 10 : -10;
      return near(index + by, layout.minor);
    }
    if (steps) return layout.at(m, n, near(r + steps[0], cellHeight), near(c + steps[1], cellWidth));
    const by = key === "PageDown" ? 1 : -1;
    const all = cut(this.frame, row.name), [major, minor] = all.of(index);
    if (all.minor > 1) return all.at(major, near(minor + by, all.minor), r, c);
    return all.at(near(major + by, all.major), minor, r, c);
  }

  // The map of a number of maps, or the one that a number of kernels belongs to.
  mapOf({name, index}) { return cut(this.frame, name).of(index)[1]; }
  rowOf(name) { return this.rows.find((row) => row.name === name && !row.mask); }
}

// 1 where the maximum of a window stood.
function maskOf(frame, k) {
  const step = frame.steps[k], shape = frame.steps[k - 1].shape, {data} = frame.arrays[`winners.${k}`];
  const mask = new Uint8Array(shape[0] * shape[1] * shape[2]);
  data.forEach((won, index) => {
    const [row, column, channel] = place(index, step.shape);
    const down = row * step.stride + Math.floor(won / step.window[1]);
    mask[flat([down, column * step.stride + won % step.window[1], channel], shape)] = 1;
  });
  return mask;
}

const bounds = (boxes) => [Math.min(...boxes.map((b) => b[0])), Math.min(...boxes.map((b) => b[1])),
  Math.max(...boxes.map((b) => b[2])), Math.max(...boxes.map((b) => b[3]))];

function text(content, name = "") {
  const span = document.createElement("span");
  span.textContent = content;
  span.className = name;
  return span;
}

// ---------------------------------------------------------------- One map, large

// Draw the map that holds a number, large enough to point at each, with its signs and marks.
export function loupe(frame, cell, marked, colours, handle) {
  const tiles = cut(frame, cell.name), [m, n] = tiles.of(cell.index);
  const {height, width} = tiles.vector ? {height: 1, width: Math.min(tiles.minor, 16)} : tiles;
  const start = tiles.vector ? Math.max(0, Math.min(cell.index - 8, tiles.minor - width)) : 0;
  const one = {
    ...tiles, major: 1, minor: 1, height, width, vector: false,
    at: (_, __, row, column) => tiles.vector ? start + column : tiles.at(m, n, row, column),
  };
  const side = Math.max(5, Math.min(30, Math.floor(168 / Math.max(height, width))));
  const layout = layOut(one, side, 1000), canvas = document.createElement("canvas");
  const ratio = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
  const pen = paint(canvas, layout, largestOf(tiles.data), colours, ratio);
  const winners = winnersIn(frame, cell.name, n);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      const index = one.at(0, 0, row, column), [x, y] = [column * side, row * side];
      if (tiles.data[index] < 0) {  // The sign, which colour alone would not tell.
        pen.fillStyle = style.getPropertyValue("--sign");
        pen.fillRect(x + side / 4, y + side / 2 - 0.5, side / 2, 1);
      }
      if (winners?.has(index)) {
        pen.strokeStyle = style.getPropertyValue("--winner");
        pen.lineWidth = 1;
        pen.strokeRect(x + 1.5, y + 1.5, side - 3, side - 3);
      }
      if (marked.has(index)) outline(pen, x, y, side, style.getPropertyValue("--source"), 1.5);
      if (index === cell.index && cell.chosen) outline(pen, x, y, side, style.getPropertyValue("--chosen"), 2.5);
    }
  const cellAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / side), column = Math.floor((event.clientX - box.left) / side);
    if (row < 0 || row >= height || column < 0 || column >= width) return null;
    return {name: cell.name, index: one.at(0, 0, row, column)};
  };
  canvas.addEventListener("click", (event) => { const at = cellAt(event); if (at) handle.pin(at); });
  canvas.setAttribute("role", "img");
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  caption.textContent = nameOf(frame, cell).replace(/, row .*/, "") + (winners ? ", winners framed" : "");
  canvas.setAttribute("aria-label", caption.textContent + ", enlarged");
  figure.append(canvas, caption);
  return figure;
}

function outline(pen, x, y, side, colour, width) {
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.strokeRect(x + width / 2, y + width / 2, side - width, side - width);
}

// The places of a map that won a window of the pooling behind it.
function winnersIn(frame, name, channel) {
  const [, kind, k] = /^(step|d)\.(\d+)$/.exec(name) || [];
  if (kind !== "step" || frame.steps[Number(k) + 1]?.kind !== "pooling") return null;
  const mask = maskOf(frame, Number(k) + 1), {shape} = frame.steps[Number(k)], won = new Set();
  for (let index = channel; index < mask.length; index += shape[2]) if (mask[index]) won.add(index);
  return won;
}

