// The pictures of a training: loss and accuracy by step, and a hundred digits, right or wrong.

import {sized} from "./tiles.js";

const LEFT = 44, BOTTOM = 22, TOP = 16, BETWEEN = 52, SIDE = 28, CELL = 31;

const last = (runs) => Math.max(1, ...runs.map((run) => run.step));

// Two plots side by side, or below each other where there is little room.
function plots(canvas) {
  const width = canvas.clientWidth || 600, height = canvas.clientHeight || 300, narrow = width < 460;
  const w = narrow ? width - LEFT - 8 : (width - LEFT - BETWEEN - 8) / 2, h = narrow ? (height - 2 * BOTTOM - 2 * TOP) / 2 : height - BOTTOM - TOP;
  const second = narrow ? {x: LEFT, y: 2 * TOP + h + BOTTOM} : {x: LEFT + w + BETWEEN, y: TOP};
  return {width, height, boxes: [{x: LEFT, y: TOP, w, h}, {...second, w, h}]};
}

// The step below a pointer.
export function stepAt(canvas, event, runs) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  const near = plots(canvas).boxes.reduce((best, one) => {
    const away = (b) => Math.max(b.x - x, x - b.x - b.w, 0) + Math.max(b.y - y, y - b.y - b.h, 0);
    return !best || away(one) < away(best) ? one : best;
  }, null);
  return Math.round(Math.min(Math.max((x - near.x) / near.w, 0), 1) * last(runs));
}

// A round number of the size of a share of the range.
function roundStep(range, count) {
  const rough = range / count, power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5].find((n) => n * power >= rough) || 10);
}

export function drawCurves(canvas, runs, marked) {
  const {width, height, boxes} = plots(canvas), ratio = window.devicePixelRatio || 1;
  const pen = sized(canvas, width, height, ratio), style = getComputedStyle(document.documentElement);
  canvas.style.width = "100%";
  const colour = (name) => style.getPropertyValue(name).trim();
  const losses = runs.flatMap((run) => run.points.map((point) => point[1])).filter(Number.isFinite).sort((a, b) => a - b);
  // The few highest points of a noisy curve do not set the scale.
  const most = losses.length ? Math.max(losses[Math.floor(0.99 * (losses.length - 1))], 1e-3) * 1.1 : 3;
  const steps = last(runs);
  const axes = ({x, y, w, h}, title, top, form) => {
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = colour("--soft");
    pen.strokeStyle = colour("--line");
    pen.lineWidth = 1;
    pen.textAlign = "left";
    pen.fillText(title, x, y - 5);
    for (let value = 0; value <= top * 1.0001; value += roundStep(top, 4)) {
      const at = y + h - value / top * h;
      pen.beginPath();
      pen.moveTo(x, at);
      pen.lineTo(x + w, at);
      pen.stroke();
      pen.textAlign = "right";
      pen.fillText(form(value), x - 4, at + 4);
    }
    pen.textAlign = "center";
    for (let value = 0; value <= steps; value += Math.max(1, roundStep(steps, 4)))
      pen.fillText(value.toLocaleString("en"), x + value / steps * w, y + h + 14);
    if (marked !== null) {
      pen.strokeStyle = colour("--chosen");
      pen.beginPath();
      pen.moveTo(x + marked / steps * w, y);
      pen.lineTo(x + marked / steps * w, y + h);
      pen.stroke();
    }
  };
  const line = ({x, y, w, h}, points, top, stroke, dash) => {
    pen.strokeStyle = stroke;
    pen.lineWidth = 1.8;
    pen.setLineDash(dash);
    pen.save();
    pen.beginPath();
    pen.rect(x, y - 2, w + 2, h + 4);
    pen.clip();
    pen.beginPath();
    const columns = new Map();  // The mean of all values in a column of pixels.
    for (const [step, value] of points) {
      if (value === null || !Number.isFinite(value)) continue;
      const column = Math.round(step / steps * w), [sum, count] = columns.get(column) || [0, 0];
      columns.set(column, [sum + value, count + 1]);
    }
    for (const [column, [sum, count]] of columns) pen.lineTo(x + column, y + h - sum / count / top * h);
    pen.stroke();
    pen.restore();
    pen.setLineDash([]);
  };
  const race = runs.length > 1;
  axes(boxes[0], race ? "loss of each step: A full, B dashed" : "loss: each step; dotted, held-out", most, (v) => String(Number(v.toPrecision(2))));
  axes(boxes[1], race ? "held-out accuracy: A full, B dashed" : "accuracy: training; dotted, held-out", 1, (v) => Math.round(100 * v) + " %");
  const [bar, minus] = [colour("--bar"), colour("--minus")];
  runs.forEach((run, k) => {
    const dash = race && k ? [6, 4] : [], hue = race && k ? minus : bar;
    line(boxes[0], run.points, most, hue, dash);
    if (!race) line(boxes[0], run.looks.map((look) => [look[0], look[2][0]]), most, minus, [2, 3]);
    if (!race) line(boxes[1], run.looks.map((look) => [look[0], look[1][1]]), 1, bar, []);
    line(boxes[1], run.looks.map((look) => [look[0], look[2][1] ?? look[1][1]]), 1, race ? hue : minus, race ? dash : [2, 3]);
  });
}

// A hundred digits, ten of a class in a row; the ones that are read wrong are framed and crossed.
export function drawGrid(canvas, {pixels, labels}, read) {
  const ratio = window.devicePixelRatio || 1, rows = Math.ceil(labels.length / 10);
  const pen = sized(canvas, 10 * CELL, rows * CELL, ratio), style = getComputedStyle(document.documentElement);
  const bytes = decoded(pixels), image = new ImageData(SIDE, SIDE), one = document.createElement("canvas");
  [one.width, one.height] = [SIDE, SIDE];
  canvas.style.height = "auto";
  const small = one.getContext("2d");
  labels.forEach((label, k) => {
    for (let at = 0; at < SIDE * SIDE; at++) {
      const level = 255 - bytes[k * SIDE * SIDE + at];
      image.data.set([level, level, level, 255], 4 * at);
    }
    small.putImageData(image, 0, 0);
    const x = k % 10 * CELL + 1.5, y = Math.floor(k / 10) * CELL + 1.5;
    pen.drawImage(one, x, y);
    if (read[k] === label) return;
    pen.strokeStyle = style.getPropertyValue("--chosen");
    pen.lineWidth = 2;
    pen.strokeRect(x, y, SIDE, SIDE);
    pen.beginPath();
    pen.moveTo(x + SIDE - 9, y + 1);
    pen.lineTo(x + SIDE - 1, y + 9);
    pen.moveTo(x + SIDE - 1, y + 1);
    pen.lineTo(x + SIDE - 9, y + 9);
    pen.stroke();
  });
}

let known = [null, null];
function decoded(pixels) {
  if (known[0] !== pixels) known = [pixels, Uint8Array.from(atob(pixels), (letter) => letter.charCodeAt(0))];
  return known[1];
}

// Which digit is below a pointer.
export function digitAt(canvas, event) {
  const box = canvas.getBoundingClientRect(), cell = box.width / 10;
  const column = Math.floor((event.clientX - box.left) / cell), row = Math.floor((event.clientY - box.top) / cell);
  return column >= 0 && column < 10 && row >= 0 ? 10 * row + column : null;
}
