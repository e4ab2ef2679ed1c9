// The page: draws on a paper, sends it to be read at every stroke, and shows the answer.
// The server does all of the mathematics; its answers hold texts, numbers and pictures.
"use strict";

const paper = document.getElementById("paper");
const pen = paper.getContext("2d", {willReadFrequently: true});  // At every stroke.
const answer = document.getElementById("answer"), bars = document.getElementById("bars");
const boxes = document.getElementById("boxes"), digits = document.getElementById("digits");
const steps = document.getElementById("steps"), found = document.getElementById("found");
const file = document.getElementById("file");

let strokes = [], background = null;  // on the paper: lines, and the picture below them or null
let photograph = null;                // the file that is shown, until someone draws on it
let chosen = 0;                       // index of the digit whose steps are shown
let asked = 0, shown = 0, busy = 0;   // readings: requested, last shown, in progress
let stale = false;                    // whether the paper has changed since the last request

// ---------------------------------------------------------------- The paper

function paint() {
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, paper.width, paper.height);
  if (background) pen.drawImage(background, ...frame());
  pen.strokeStyle = "#000";
  pen.lineWidth = 22;
  pen.lineCap = pen.lineJoin = "round";
  for (const stroke of strokes) {
    pen.beginPath();
    pen.moveTo(...stroke[0]);
    for (const place of stroke) pen.lineTo(...place);
    pen.stroke();
  }
}

// Left, top, width and height of the picture on the paper, or of the whole paper.
function frame() {
  if (!background) return [0, 0, paper.width, paper.height];
  const {width, height} = background, scale = paper.width / Math.max(width, height);
  const size = [width * scale, height * scale];
  return [(paper.width - size[0]) / 2, (paper.height - size[1]) / 2, ...size];
}

// The grey levels of the paper, a byte per pixel. Photographs on it may have colours.
function levelsOfPaper() {
  const {data} = pen.getImageData(0, 0, paper.width, paper.height);
  const levels = new Uint8Array(data.length / 4);
  for (let pixel = 0; pixel < levels.length; pixel++) {
    const at = 4 * pixel;
    levels[pixel] = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2] + 0.5;
  }
  return levels;
}

// A stroke on a photograph ends its use as a file: from now on the paper is read.
function beginStroke(place) {
  photograph = null;
  strokes.push([place]);
}

// Start again, on an empty paper or on a picture.
function layDown(picture, source = null) {
  strokes = [];
  lowered = false;
  chosen = 0;
  background = picture;
  photograph = source;
  change();
}

async function openPicture(source) {
  if (!source) return;
  const picture = await createImageBitmap(source).catch(() => null);
  if (picture) layDown(picture, source);
  else show({message: "this is not a picture that can be shown"});
}

// ---------------------------------------------------------------- Reading it

// During a stroke, only one reading is in progress; later changes wait for it.
function change() {
  paint();
  if (busy) stale = true; else read();
}

async function read() {
  const number = ++asked;
  busy++;
  stale = false;
  const failed = {message: "no answer: is the program still running?"};
  const size = `&width=${paper.width}&height=${paper.height}`;
  const query = "read?digit=" + chosen + (photograph ? "&stages" : size);
  const request = {method: "POST", body: photograph || levelsOfPaper()};
  const result = await fetch(query, request)
    .then((response) => response.json()).catch(() => failed);
  busy--;
  if (number > shown) {  // Otherwise a later answer has already arrived.
    shown = number;
    if (number === asked) chosen = result.chosen || 0;  // The user may have chosen another.
    show(result);
  }
  if (stale && !busy) read();
}

// ---------------------------------------------------------------- Showing the answer

function show(result) {
  answer.textContent = result.message;
  showBoxes(result.names || [], result.boxes || []);
  showProbabilities(result.probabilities || []);
  steps.replaceChildren(...(result.steps || []).map(stepFigure));
  showStages(result.stages || []);
}

function showBoxes(names, places) {
  const [left, top, width, height] = photograph ? frame() : [0, 0, paper.width, paper.height];
  const percent = (part) => 100 * part / paper.width + "%";
  boxes.replaceChildren(...places.map((place, index) => {
    const box = document.createElement("div");
    box.style.top = percent(top + place[0] * height);
    box.style.left = percent(left + place[1] * width);
    box.style.height = percent((place[2] - place[0]) * height);
    box.style.width = percent((place[3] - place[1]) * width);
    box.className = index === chosen ? "chosen" : "";
    return box;
  }));
  digits.replaceChildren(...(names.length > 1 ? names : []).map(digitButton));
}

function digitButton(name, index) {
  const button = document.createElement("button");
  button.textContent = name;
  button.setAttribute("aria-pressed", index === chosen);
  button.addEventListener("click", () => {
    chosen = index;
    read().then(() => digits.children[index]?.focus());
  });
  return button;
}

function showProbabilities(probabilities) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  rows.forEach((row, digit) => {
    const percent = 100 * (probabilities[digit] || 0);
    row.fill.style.width = percent + "%";
    row.share.textContent = probabilities.length ? percent.toFixed(1) + " %" : "";
    row.name.style.fontWeight = digit === best ? 700 : 400;
  });
}

function showStages(stages) {
  found.replaceChildren();
  if (!stages.length) return;
  const title = document.createElement("h2"), row = document.createElement("div");
  title.textContent = "How the digits were found";
  row.className = "row";
  row.append(...stages.map(stepFigure));
  found.append(title, row);
}

function stepFigure(step) {
  const figure = document.createElement("figure"), picture = new Image();
  picture.src = step.picture;
  picture.alt = step.title + ", " + step.size;
  const caption = document.createElement("figcaption"), size = document.createElement("span");
  caption.textContent = step.title;
  size.textContent = step.size;
  caption.append(size);
  figure.append(picture, caption);
  return figure;
}

// The bar of each digit's probability: its elements.
const rows = Array.from({length: 10}, (_, digit) => {
  const name = document.createElement("span"), frame = document.createElement("div");
  const share = document.createElement("span"), fill = document.createElement("div");
  name.textContent = digit;
  share.className = "share";
  fill.className = "fill";
  frame.append(fill);
  bars.append(name, frame, share);
  return {name, fill, share};
});

// ---------------------------------------------------------------- Mouse, pen, finger

let drawing = null;  // id of the pointer that draws

function placeOnPaper(event) {
  const box = paper.getBoundingClientRect(), scale = paper.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

paper.addEventListener("pointerdown", (event) => {
  if (drawing !== null || event.button !== 0) return;
  drawing = event.pointerId;
  paper.setPointerCapture(drawing);
  beginStroke(placeOnPaper(event));
  change();
});
paper.addEventListener("pointermove", (event) => {
  if (event.pointerId !== drawing) return;
  strokes.at(-1).push(placeOnPaper(event));
  change();
});
for (const end of ["pointerup", "pointercancel"])
  paper.addEventListener(end, (event) => {
    if (event.pointerId !== drawing) return;
    drawing = null;
    if (stale) read();  // The complete stroke does not wait for a reading in progress.
  });

// ---------------------------------------------------------------- Keyboard

let at = [140, 60], lowered = false;  // the keyboard's pen
const directions = {ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10]};

paper.addEventListener("keydown", (event) => {
  if (event.key === " ") {
    lowered = !lowered;
    if (lowered) beginStroke(at);
  } else if (event.key in directions) {
    at = at.map((side, axis) => Math.min(Math.max(side + directions[event.key][axis], 0), 280));
    if (lowered) strokes.at(-1).push(at);
  } else return;
  event.preventDefault();
  change();
  pen.fillStyle = lowered ? "#d62728" : "#1f77b4";
  pen.fillRect(at[0] - 3, at[1] - 3, 6, 6);
});

// ---------------------------------------------------------------- Buttons, files

document.getElementById("undo").addEventListener("click", () => {
  if (strokes.length) strokes.pop(); else background = photograph = null;
  lowered = false;
  change();
});
document.getElementById("clear").addEventListener("click", () => layDown(null));
document.getElementById("example").addEventListener("click", () => {
  fetch("example?" + Math.random()).then((response) => response.blob())
    .then(createImageBitmap).then((picture) => layDown(picture)).catch(() => {});
});
document.getElementById("open").addEventListener("click", () => file.click());
file.addEventListener("change", () => { openPicture(file.files[0]); file.value = ""; });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  openPicture(event.dataTransfer.files[0]);
});

change();
