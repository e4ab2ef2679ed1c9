"use strict";
const paper = document.getElementById("paper"), pen = paper.getContext("2d");
const answer = document.getElementById("answer"), bars = document.getElementById("bars");
const steps = document.getElementById("steps");
const boxes = document.getElementById("boxes"), digits = document.getElementById("digits");
const found = document.getElementById("found"), file = document.getElementById("file");
let strokes = [], background = null;  // what is on the paper: lines on a picture, or none
let photograph = null;                // the file that is shown, until it is drawn on
let chosen = 0;                       // of the digits found, the one that is shown
let rows = [];                        // of the bars: the elements of each digit
let asked = 0, shown = 0, busy = 0;   // readings: so far, the last one shown, under way
let stale = false;                    // whether the last picture still waits to be read

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

// Left, top, width and height on the paper of the picture that lies on it, or of all of it.
function frame() {
  if (!background) return [0, 0, paper.width, paper.height];
  const {width, height} = background, scale = paper.width / Math.max(width, height);
  const size = [width * scale, height * scale];
  return [(paper.width - size[0]) / 2, (paper.height - size[1]) / 2, ...size];
}

function draw_figure(step) {
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

function show_boxes(names, places) {
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
  digits.replaceChildren(...(names.length > 1 ? names : []).map((name, index) => {
    const button = document.createElement("button");
    button.textContent = name;
    button.setAttribute("aria-pressed", index === chosen);
    button.addEventListener("click", () => {
      chosen = index;
      read().then(() => digits.children[index]?.focus());
    });
    return button;
  }));
}

function show(result) {
  const shares = result.probabilities || [];
  const best = shares.indexOf(Math.max(...shares));
  answer.textContent = result.message;
  show_boxes(result.names || [], result.boxes || []);
  rows.forEach((row, digit) => {
    row.fill.style.width = 100 * (shares[digit] || 0) + "%";
    row.share.textContent = shares.length ? (100 * shares[digit]).toFixed(1) + " %" : "";
    row.name.style.fontWeight = digit === best ? 700 : 400;
  });
  steps.replaceChildren(...(result.steps || []).map(draw_figure));
  found.replaceChildren();
  if (result.stages?.length) {
    const title = document.createElement("h2"), row = document.createElement("div");
    title.textContent = "How the digits were found";
    row.className = "row";
    row.append(...result.stages.map(draw_figure));
    found.append(title, row);
  }
}

// What is on the paper as a PNG file, at once: toBlob would wait for the browser's leisure.
function picture_of_paper() {
  const [, base64] = paper.toDataURL("image/png").split(",");
  return Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0));
}

async function read() {
  const number = ++asked;
  busy++;
  stale = false;
  const nobody = {message: "no answer: is the program still running?"};
  const query = "read?digit=" + chosen + (photograph ? "&stages" : "");
  const request = {method: "POST", body: photograph || picture_of_paper()};
  const result = await fetch(query, request)
    .then((response) => response.json()).catch(() => nobody);
  busy--;
  if (number > shown) {  // Else a later one has come before it.
    shown = number;
    if (number === asked) chosen = result.chosen || 0;  // Else another may be chosen by now.
    show(result);
  }
  if (stale && !busy) read();
}

// In the middle of a stroke one reading follows the other; what comes meanwhile waits.
function change() {
  paint();
  if (busy) stale = true; else read();
}

// A new stroke is the end of a photograph as a file: from now on it is what the paper shows.
function begin(place) {
  photograph = null;
  strokes.push([place]);
}

// Begin anew, on an empty paper or on a picture.
function lay_down(picture, source = null) {
  strokes = [];
  lowered = false;
  chosen = 0;
  background = picture;
  photograph = source;
  change();
}

async function open_picture(source) {
  if (!source) return;
  const picture = await createImageBitmap(source).catch(() => null);
  if (picture) lay_down(picture, source);
  else answer.textContent = "this is no picture that can be shown";
}

function place(event) {
  const box = paper.getBoundingClientRect(), scale = paper.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

let drawing = null;  // the pointer that draws
paper.addEventListener("pointerdown", (event) => {
  if (drawing !== null || event.button !== 0) return;
  drawing = event.pointerId;
  paper.setPointerCapture(drawing);
  begin(place(event));
  change();
});
paper.addEventListener("pointermove", (event) => {
  if (event.pointerId !== drawing) return;
  strokes.at(-1).push(place(event));
  change();
});
for (const end of ["pointerup", "pointercancel"])
  paper.addEventListener(end, (event) => {
    if (event.pointerId !== drawing) return;
    drawing = null;
    if (stale) read();  // The whole stroke waits for no part of it.
  });

let at = [140, 60], lowered = false;  // the pen in the keyboard's hand
const ways = {ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10]};
paper.addEventListener("keydown", (event) => {
  if (event.key === " ") {
    lowered = !lowered;
    if (lowered) begin(at);
  } else if (event.key in ways) {
    at = at.map((side, axis) => Math.min(Math.max(side + ways[event.key][axis], 0), 280));
    if (lowered) strokes.at(-1).push(at);
  } else return;
  event.preventDefault();
  change();
  pen.fillStyle = lowered ? "#d62728" : "#1f77b4";
  pen.fillRect(at[0] - 3, at[1] - 3, 6, 6);
});

document.getElementById("undo").addEventListener("click", () => {
  if (strokes.length) strokes.pop(); else background = photograph = null;
  lowered = false;
  change();
});
document.getElementById("clear").addEventListener("click", () => lay_down(null));
document.getElementById("example").addEventListener("click", () => {
  fetch("example?" + Math.random()).then((response) => response.blob())
    .then(createImageBitmap).then((picture) => lay_down(picture)).catch(() => {});
});
document.getElementById("open").addEventListener("click", () => file.click());
file.addEventListener("change", () => { open_picture(file.files[0]); file.value = ""; });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  open_picture(event.dataTransfer.files[0]);
});

for (let digit = 0; digit < 10; digit++) {
  const name = document.createElement("span"), frame = document.createElement("div");
  const share = document.createElement("span"), fill = document.createElement("div");
  name.textContent = digit;
  share.className = "share";
  fill.className = "fill";
  frame.append(fill);
  bars.append(name, frame, share);
  rows.push({name, fill, share});
}
change();
