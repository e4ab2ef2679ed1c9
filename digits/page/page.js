// The page: what is drawn is read, what is read is traced, and each number can be asked.
// The class computes on the server; a frame of all its numbers is shown here.

import {holds, readFrame, valueOf} from "./frame.js";
import {PARTS, SETTINGS, fromLink, toLink} from "./lesson.js";
import {Network, loupe} from "./network.js";
import {Own} from "./own.js";
import {Paper, pictureOf} from "./paper.js";
import {Training} from "./training.js";
import {asCSV, asText, explain, linesOf, mainSource, number, rowsOf, sourceOf, sourcesOf} from "./panel.js";

const get = (id) => document.getElementById(id);
const token = document.querySelector("meta[name=token]").content;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const state = {
  models: [], tests: 0, model: 0, beside: null,
  live: false, snapshot: null,             // whether what is in training is shown: [run, step]
  image: null, chosen: 0, several: false,  // code of the image that is traced; which digit
  label: null, mode: "forward", quiz: false, without: [],
  changes: [], undone: [],                 // of the parameters
  cell: null, pointed: null,               // the number that is kept, and the one pointed at
  step: Object.fromEntries(Object.entries(SETTINGS).map(([name, {usual}]) => [name, usual])),
};
let frame = null;  // the last one; its parameters serve the next, too

// ---------------------------------------------------------------- Requests

// One request of a kind is in progress; of those asked for meanwhile, only the last follows.
class Asker {
  constructor(ask, show) { Object.assign(this, {ask, show, busy: 0, stale: false, asked: 0, shown: 0}); }
  request() { if (this.busy) this.stale = true; else this.start(); }
  async start() {
    const turn = ++this.asked;
    this.busy++;
    this.stale = false;
    busy();
    const result = await this.ask().catch((error) => ({message: error.message}));
    this.busy--;
    if (turn > this.shown) {  // Otherwise a later answer has already arrived.
      this.shown = turn;
      this.show(result, turn === this.asked);
    }
    if (this.stale && !this.busy) this.start();
    busy();
  }
}

// Whether answers are under way, for screen readers and tests.
function busy() {
  const [reading, tracing] = [reader, tracer].map((asker) => Boolean(asker.busy || asker.stale));
  get("answer").dataset.reading = reading;
  get("answer").setAttribute("aria-busy", reading || tracing);
}

async function post(path, body) {
  const answer = await fetch(path, {method: "POST", body, headers: {"X-Token": token}})
    .catch(() => { throw new Error("no answer: is the program still running?"); });
  if (answer.ok) return answer;
  throw new Error((await answer.json().catch(() => ({}))).message || `the server answered ${answer.status}`);
}
const postJSON = (path, value) => post(path, JSON.stringify(value));

const inTraining = () => state.live ? state.snapshot : null;
const asked = (model = state.model) => ({
  model, snapshot: model === state.model ? inTraining() : null, image: state.image, label: state.label, back: state.mode === "back",
  changes: model === state.model ? state.changes : [],
  step: state.mode === "back" ? state.step : null, have: null,
});

const reader = new Asker(async () => {
  const {canvas, file} = paper, size = `&width=${canvas.width}&height=${canvas.height}`;
  const [run, step] = inTraining() || [], at = run === undefined ? "" : `&snapshot=${run}-${step ?? ""}`;
  const query = `read?digit=${state.chosen}${file ? "&stages" : ""}&model=${state.model}${at}${file ? "" : size}`;
  return (await post(query, file || paper.levels())).json();
}, showReading);

const tracer = new Asker(async () => {
  if (state.image === null) return null;
  const before = frame, request = {...asked(), have: frame?.version || null};
  const other = state.beside === null ? null :
    postJSON("trace", {...asked(state.beside), back: false, step: null}).then((answer) => answer.arrayBuffer());
  const buffer = await (await postJSON("trace", request)).arrayBuffer();
  return {frame: readFrame(buffer, before), beside: other && readFrame(await other)};
}, showTrace);

// ---------------------------------------------------------------- The paper and its reading

const paper = new Paper(get("paper"), {
  changed,
  ended() { if (reader.stale) reader.start(); },  // A complete stroke waits for no reading.
  width: () => Number(get("width").value),
});

function changed() {
  get("undo").disabled = !paper.canUndo;
  get("redo").disabled = !paper.canRedo;
  if (paper.code) {  // An image that the network takes as it is.
    state.several = false;
    get("doubts").textContent = "";
    setImage(paper.code);
    showBoxes([], []);
    get("found").replaceChildren();
  } else reader.request();
}

function setImage(code) {
  if (code !== state.image) state.label = null;  // The label of another image.
  state.image = code;
  if (code === null) showNothing(); else tracer.request();
  own?.offer();
}

function showReading(result, last) {
  if (paper.code) return;
  state.several = (result.names || []).length > 1;
  if (result.image) notes = [];
  get("answer").textContent = result.message;
  get("doubts").textContent = result.doubts || "";
  if (last) state.chosen = result.chosen || 0;  // The user may have chosen another.
  showBoxes(result.names || [], result.boxes || []);
  showStages(result.stages || []);
  showProbabilities(result.probabilities || []);
  setImage(result.image || null);
}

function showBoxes(names, places) {
  const side = paper.canvas.width, whole = [0, 0, side, side];
  const [left, top, width, height] = paper.file ? paper.frame() : whole;
  const percent = (part) => 100 * part / side + "%";
  get("boxes").replaceChildren(...places.map((place, index) => {
    const box = document.createElement("div");
    box.style.top = percent(top + place[0] * height);
    box.style.left = percent(left + place[1] * width);
    box.style.height = percent((place[2] - place[0]) * height);
    box.style.width = percent((place[3] - place[1]) * width);
    box.className = index === state.chosen ? "chosen" : "";
    return box;
  }));
  get("digits").replaceChildren(...(names.length > 1 ? names : []).map((name, index) => {
    const button = make("button", name);
    button.setAttribute("aria-pressed", index === state.chosen);
    button.addEventListener("click", () => {
      state.chosen = index;
      reader.start().then(() => get("digits").children[index]?.focus());
    });
    return button;
  }));
}

// The bar of each digit's probability: its elements.
const bars = Array.from({length: 10}, (_, digit) => {
  const name = make("span", digit), box = make("div"), share = make("span", "", "share");
  const fill = make("div", "", "fill"), other = make("div", "", "fill other");
  box.append(fill, other);
  get("bars").append(name, box, share);
  return {name, fill, other, share};
});

function showProbabilities(probabilities, beside = []) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  const show = (p) => (100 * p).toFixed(1) + " %";
  bars.forEach((bar, digit) => {
    const [own, other] = [probabilities[digit] || 0, beside[digit] || 0];
    bar.fill.style.width = 100 * own + "%";
    bar.other.style.width = 100 * other + "%";
    bar.other.hidden = !beside.length;
    bar.share.textContent = !probabilities.length ? "" : beside.length ? `${show(own)} | ${show(other)}` : show(own);
    bar.name.style.fontWeight = digit === best ? 700 : 400;
  });
}

function showStages(stages) {
  const row = make("div", "", "row");
  row.append(...stages.map((stage) => {
    const figure = make("figure"), picture = new Image(), caption = make("figcaption", stage.title);
    picture.src = stage.picture;
    picture.alt = stage.title + ", " + stage.size;
    caption.append(make("span", stage.size));
    figure.append(picture, caption);
    return figure;
  }));
  get("found").replaceChildren(...(stages.length ? [make("h2", "How the digits were found"), row] : []));
}

// ---------------------------------------------------------------- The frame

const network = new Network(get("network"), {
  point(cell) { state.pointed = cell; schedule(); },
  pin(cell) { keep(cell); },
  enter(row) {
    if (row.mask || cellOf(state.cell, row)) return;
    keep({name: row.name, index: row.cell ?? row.layout.at(0, 0, 0, 0)});
  },
  key: keyOn,
});
const cellOf = (cell, row) => cell && cell.name === row.name;

function showNothing() {
  get("pipeline").hidden = true;
  get("beside-answer").textContent = "";
  get("warning").textContent = notes.join("; ");
  saveLink();
}

function showTrace(result) {
  if (state.image === null) return;
  if (!result?.frame) {
    get("warning").textContent = [...notes, result?.message].filter(Boolean).join("; ");
    if (tried) {  // It is refused, and does not count.
      state.changes = state.changes.slice(0, -1);
      get("checked").textContent = result?.message || "";
    }
    tried = false;
    return showUndo();
  }
  tried = false;
  get("warning").textContent = [...notes, result.frame.step?.message].filter(Boolean).join("; ");
  ({frame} = result);
  showUndo();
  get("about").dataset.checksum = frame.model.checksum;
  const last = frame.steps.length - 1, probabilities = Array.from(frame.arrays[`step.${last}`].data);
  const beside = result.beside ? Array.from(result.beside.arrays[`step.${result.beside.steps.length - 1}`].data) : [];
  showProbabilities(probabilities, beside);
  if (!state.several) get("answer").textContent = frame.message +
    (frame.true_label === null ? "" : `, truly ${frame.true_label}`);
  get("beside-answer").textContent = result.beside ? `lower bars: ${result.beside.model.name} reads ${result.beside.message}` : "";
  get("pipeline").hidden = false;
  get("label").value = state.label === null ? "" : state.label;
  get("label").options[0].textContent = `${frame.true_label ?? frame.predicted} (${frame.true_label === null ? "as read" : "true"})`;
  get("checked").textContent = "";  // It was of another frame.
  showDrop();
  if (state.live) tellAbout(frame.model);
  network.show(frame, state.mode);
  for (const key of ["cell", "pointed"]) if (state[key] && !holds(frame, state[key])) state[key] = null;
  showPanel();
  saveLink();
}

function setMode(mode) {
  if (state.mode === mode) return;
  state.mode = mode;
  const {cell} = state, last = `step.${frame ? frame.steps.length - 1 : 0}`;
  if (cell && mode === "forward" && cell.name.startsWith("d."))
    state.cell = {name: sourceOf(cell.name), index: cell.index};
  else if (cell && mode === "back" && cell.name !== last && cell.name !== "loss")
    state.cell = {name: "d." + cell.name.replace(/^step\./, ""), index: cell.index};
  state.pointed = null;
  showMode();
  tracer.request();
}

function showMode() {
  get("forward").setAttribute("aria-pressed", state.mode === "forward");
  get("back").setAttribute("aria-pressed", state.mode === "back");
  get("step-part").hidden = state.mode !== "back" || state.without.includes("step-part");
  get("label-field").hidden = state.mode !== "back";
}

// ---------------------------------------------------------------- The panel

let told = null, opened = null, answered = false, scheduled = false;

// At most one picture of the panel a frame of the screen, however fast the pointer moves.
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; showPanel(); });
}

// Keep a number: it stays when the pointer leaves, and stands in the link.
function keep(cell) {
  state.cell = cell;
  state.pointed = null;
  const row = network.rowOf(cell.name);
  if (row) {
    row.cell = cell.index;
    chooseKernels(cell);
  }
  showPanel();
  if (told) get("live").textContent = `${told.title}: ${hidden() ? "hidden" : number(told.shown, frame)}`;
  saveLink();
}

// Of many kernels, those of the chosen map are shown.
function chooseKernels(cell) {
  const rows = network.rows.filter((row) => row.kernels && [row.name, row.user].includes(cell.name));
  for (const row of rows) row.chosen = network.mapOf(cell);
  if (rows.length) network.draw();
}

const hidden = () => state.quiz && !answered;

function showPanel() {
  if (!frame || state.image === null) return;
  const cell = state.pointed || state.cell;
  const same = told && cell && told.cell.name === cell.name && told.cell.index === cell.index;
  if (!same) { opened = null; answered = false; get("checked").textContent = ""; }
  told = cell && holds(frame, cell) ? explain(frame, cell) : null;
  for (const id of ["sum", "panel-buttons", "loupes"]) get(id).hidden = !told;
  if (!told) {
    get("panel-title").textContent = "Point at a number";
    get("sentence").textContent = "Its sources light up, and the arithmetic stands here.";
    get("edit").hidden = true;
    network.highlight(null, new Map());
    return;
  }
  const sources = sourcesOf(told);
  network.highlight(cell, sources);
  get("panel-title").textContent = told.title;
  get("sentence").textContent = told.sentence;
  showTable();
  showLoupes(cell, sources);
  const parameter = /^(d\.)?(kernels|biases|[WB]_dense)/.test(cell.name) ? cell.name.replace(/^d\./, "") : null;
  get("edit").hidden = !parameter;
  if (parameter && document.activeElement !== get("edit-value"))
    get("edit-value").value = hidden() ? "" : valueOf(frame, {name: parameter, index: cell.index});
  get("check").hidden = !/^d\.(0$|kernels|biases|[WB]_dense)/.test(cell.name);
  get("show-answer").hidden = !hidden();
}

function showTable() {
  const table = make("table"), caption = make("caption", told.title, "sr"), head = make("thead"), body = make("tbody");
  const show = (value) => hidden() ? "?" : number(value, frame), [first = "", second] = told.headings || [];
  const columns = ["place", first, second, second || told.product ? told.product || "product" : null];
  const shown = columns.filter((heading, at) => at < 2 || heading);
  const line = (cells, kind, tag = "td") => {
    const row = make("tr", "", kind);
    cells.forEach((content, at) => {
      const cell = make(at ? tag : "th", "");
      if (!at) cell.scope = tag === "th" ? "col" : "row";
      else if (tag === "th") cell.scope = "col";
      cell.append(content);
      row.append(cell);
    });
    // A label alone before a number takes the columns of the operands, too.
    if (cells.length === 2) row.firstChild.colSpan = Math.max(1, shown.length - 1);
    return row;
  };
  if (told.terms.length) head.append(line(shown, "", "th"));
  const values = (row) => [second ? number(row.b, frame) : null, second || told.product ? show(row.value) : null]
    .filter((value) => value !== null);
  for (const row of rowsOf(frame, told, opened)) {
    if (row.kind === "term") {
      const tr = line([row.label + (row.note ? ` (${row.note})` : ""), number(row.a, frame), ...values(row)], row.marked ? "won" : "");
      body.append(tr);
      continue;
    }
    let label = row.label;
    if (row.kind === "group") {
      label = make("button", `${row.open ? "▾" : "▸"} ${row.label}, ${row.count} terms`, "group");
      label.setAttribute("aria-expanded", row.open);
      label.addEventListener("click", () => {
        opened = row.open ? "" : row.label;
        showPanel();
        [...document.querySelectorAll("button.group")].find((button) => button.textContent.slice(2) === label.textContent.slice(2))?.focus();
      });
    }
    body.append(line([label, show(row.value)], row.kind));
  }
  const foot = make("tfoot"), result = (lines) => {
    for (const {label, value, result} of lines)
      foot.append(line([label, show(value)], result ? "result" : ""));
  };
  result(linesOf(told));
  result(told.after);
  if (told.update.length) foot.append(line(["one step of gradient descent", ""], "group"));
  result(told.update);
  table.append(caption, head, body, foot);
  get("sum").replaceChildren(table);
}

// The map of the number, and of its largest source in each array that it comes from.
function showLoupes(cell, sources) {
  if (state.without.includes("loupes")) return;
  const main = mainSource(frame, told), shown = [{...cell, chosen: true}];
  for (const [name, indices] of sources)
    if (name !== "loss" && shown.length < 3) shown.push({name, index: main?.name === name ? main.index : pickOf(name, indices)});
  const handle = {pin: keep};
  get("loupes").replaceChildren(...shown.filter(({name}) => name !== "loss").map((one) =>
    loupe(frame, one, sources.get(one.name) || new Set(), network.colours, handle)));
}

// Of several numbers of an array, one that belongs to the term of the largest size.
function pickOf(name, indices) {
  const main = mainSource(frame, told), term = told.terms.find(({a}) => a === main);
  return term?.b?.name === name ? term.b.index : [...indices][0];
}

function keyOn(event, row) {
  const {key} = event, cell = cellOf(state.cell, row) ? state.cell : {name: row.name, index: row.cell ?? 0};
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(Arrow|Page)/.test(key)) keep({name: row.name, index: network.move(row, cell.index, key)});
  else if (key === "Enter") keep(state.pointed || cell);
  else if (key === "Backspace") follow();
  else if (key === "[" || key === "]") {
    const rows = network.rows.filter(({mask}) => !mask), at = rows.findIndex(({name}) => name === row.name);
    rows[Math.min(Math.max(at + (key === "]" ? 1 : -1), 0), rows.length - 1)].canvas.focus();
  } else return;
  event.preventDefault();
}

function follow() {
  const source = told && mainSource(frame, told);
  if (!source) return;
  keep(source);
  const row = network.rowOf(source.name);
  row?.canvas.focus({preventScroll: true});
  row?.canvas.scrollIntoView({block: "nearest", behavior: calm.matches ? "auto" : "smooth"});
}

// ---------------------------------------------------------------- Changes of the parameters

function change(entry) {
  if (state.live) training.hold(frame.model.run, frame.model.step);
  state.changes = [...state.changes, entry];
  state.undone = [];
  tried = true;
  tracer.request();
}
let tried = false;  // whether a change waits to be accepted

function showUndo() {
  const {changes, undone} = state;
  get("changes-part").hidden = !changes.length && !undone.length;
  const since = state.live && frame ? `of the network after step ${frame.model.step.toLocaleString("en")}, which the training does not take up` : "since training";
  get("changes").textContent = `${changes.length} ${changes.length === 1 ? "change" : "changes"} ${since}. `;
  get("undo-change").disabled = get("undo-all").disabled = !changes.length;
  get("redo-change").disabled = !undone.length;
}

function showDrop() {
  const {step: info} = frame;
  if (!info || info.message) get("drop").textContent = info?.message || "";
  else get("drop").textContent = `On this image, of class ${frame.label}: the loss is ${number(frame.loss, frame)}. One step at rate ${info.lr} ` +
    `should lower it by ${Number(info.predicted_drop.toPrecision(6))}, by its gradients; ` +
    `measured, it falls by ${Number(info.measured_drop.toPrecision(6))} to ${number(info.loss_after, frame)}.`;
}

// ---------------------------------------------------------------- Link

let notes = [];      // what was wrong with the link
let linked = false;  // whether it names a network that is not in training
const checksumOf = (index) => index === null ? null : state.models[index]?.checksum;

function saveLink() {
  const net = state.live ? "training" : checksumOf(state.model);
  const link = toLink({...state, net, beside: checksumOf(state.beside)});
  if (state.models.length && location.hash !== "#" + link) history.replaceState(null, "", "#" + link);
}

async function openLink() {
  const {state: link, wrong} = fromLink(location.hash.slice(1)), named = (sum) => state.models.findIndex(({checksum}) => checksum === sum);
  notes = wrong;
  linked = link.net !== undefined && link.net !== "training";  // To what is not in training.
  if (linked) {
    if (named(link.net) >= 0) state.model = named(link.net);
    else notes.push("the link was made with another network: its numbers are others");
  }
  state.beside = link.beside !== undefined && named(link.beside) >= 0 ? named(link.beside) : null;
  Object.assign(state, {mode: link.mode, quiz: link.quiz, without: link.without, changes: link.changes, undone: []});
  Object.assign(state.step, link.step);
  state.cell = link.cell || null;
  for (const name of Object.keys(SETTINGS)) get(name).value = state.step[name];
  showModels();
  showMode();
  showParts();
  if (link.image === undefined) return changed();
  await openImage(link.image, link.label ?? null);
  if (link.cell && frame && !holds(frame, link.cell)) {
    notes.push(`the link's number, ${link.cell.name}:${link.cell.index}, is not in this network`);
    get("warning").textContent = notes.join("; ");
  }
  dispatchEvent(new Event("opened"));  // For who waits for it.
}

// Lay an image of the network on the paper by its code.
async function openImage(code, label = null) {
  try {
    const answer = await postJSON("trace", {...asked(), image: code, label: null, back: false, step: null, changes: []});
    const image = readFrame(await answer.arrayBuffer());
    Object.assign(state, {image: code, label});
    paper.lay(pictureOf(image.arrays["step.0"]), {code});
    get("test").value = code[0] === "t" ? code.slice(1) : "";
    await settled();
  } catch (error) {
    notes.push(error.message);
    changed();
  }
}

const settled = async () => { while (tracer.busy) await new Promise((done) => setTimeout(done, 5)); };

// ---------------------------------------------------------------- What is in training

let own = null;  // digits that the user keeps
let watched = null;  // the network that is shown: of which training, run and step

const training = new Training({
  postJSON, openTest,
  // Show a step of a run, or with null always the newest.
  watch(run, step, key) {
    const first = !state.snapshot;
    state.snapshot = [run, step];
    if (first && linked) return showModels();
    if (first) {
      state.live = true;
      showModels();
      if (state.image === null && paper.blank) return openTest(0);
    }
    if (!state.live || key === watched) return;
    watched = key;
    Object.assign(state, {changes: [], undone: []});
    if (state.several) reader.request(); else tracer.request();
  },
  // Stay at the step that is shown, whatever is changed there.
  hold(run, step, key) {
    state.snapshot = [run, step];
    watched = key;
  },
  follow(number, run) { own?.follow(number, run); },
  leave() {
    if (!state.snapshot) return;
    Object.assign(state, {live: false, snapshot: null, changes: [], undone: []});
    showModels();
    tracer.request();
  },
  async modelsChanged(number) {
    Object.assign(state, await fetch("models").then((answer) => answer.json()), {model: number});
    showModels();
  },
});

// ---------------------------------------------------------------- Models, tests, mistakes

function showModels() {
  const option = (name, value) => Object.assign(make("option", name), {value});
  get("model").replaceChildren(...state.models.map(({name}, index) => option(name, index)));
  if (state.snapshot) get("model").append(option("in training", "live"));
  get("beside").replaceChildren(option("none", ""), ...state.models.map(({name}, index) => option(name, index)));
  get("model").value = state.live ? "live" : state.model;
  get("beside").value = state.beside ?? "";
  get("model-field").hidden = state.models.length < 2 && !state.snapshot;
  get("beside-field").hidden = state.models.length < 2;
  if (!state.live) tellAbout(state.models[state.model]);
}

function tellAbout({name, architecture, parameters}) {
  get("about").textContent = `${name}: ${architecture}, ${parameters.toLocaleString("en")} parameters. ` +
    "Max pooling comes before bias and ReLU: they commute, and this order computes less.";
}

function openTest(index) {
  const wrapped = (index % state.tests + state.tests) % state.tests;
  notes = [];
  return openImage("t" + wrapped);
}

async function showMistakes() {
  if (!get("mistakes-part").open) return;
  get("mistakes-note").textContent = "reading all test images …";
  const answer = await fetch(`mistakes?model=${state.model}`).then((got) => got.json()).catch(() => ({message: "no answer"}));
  if (!answer.mistakes) { get("mistakes-note").textContent = answer.message; return; }
  get("mistakes-note").textContent = `${answer.count} of ${answer.of} are read wrong; the most confident first` +
    (answer.count > answer.mistakes.length ? `, ${answer.mistakes.length} of them.` : ".");
  const pixels = Uint8Array.from(atob(answer.pixels), (c) => c.charCodeAt(0)), [height, width, channels] = state.input;
  const size = height * width * channels;
  get("mistakes").replaceChildren(...answer.mistakes.map(({index, label, read, probability}, at) => {
    const button = make("button", "", "mistake"), data = Float32Array.from(pixels.subarray(at * size, (at + 1) * size), (v) => v / 255);
    button.append(pictureOf({data, shape: state.input}), make("span", `${label} read as ${read}, ${(100 * probability).toFixed(0)} %`));
    button.setAttribute("aria-label", `test image ${index}: ${label} read as ${read}`);
    button.addEventListener("click", () => openTest(index));
    return button;
  }));
}

// ---------------------------------------------------------------- Controls

function make(tag, content = "", kind = "") {
  const element = document.createElement(tag);
  element.textContent = content;
  if (kind) element.className = kind;
  return element;
}
const on = (id, event, act) => get(id).addEventListener(event, act);

on("undo", "click", () => paper.undo());
on("redo", "click", () => paper.redo());
on("clear", "click", () => { get("test").value = ""; paper.clear(); });
on("open", "click", () => get("file").click());
on("file", "change", () => { openPicture(get("file").files[0]); get("file").value = ""; });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  openPicture(event.dataTransfer.files[0]);
});
async function openPicture(file) {
  if (!file) return;
  const picture = await createImageBitmap(file).catch(() => null);
  state.chosen = 0;
  if (picture) paper.lay(picture, {file});
  else get("answer").textContent = "this is not a picture that can be shown";
}

on("test", "change", () => { if (get("test").value !== "") openTest(Math.floor(Number(get("test").value)) || 0); });
on("previous", "click", () => openTest((Number(get("test").value) || 0) - 1));
on("next", "click", () => openTest(get("test").value === "" ? 0 : Number(get("test").value) + 1));
on("example", "click", () => openTest(Math.floor(Math.random() * state.tests)));
on("model", "change", () => {
  state.live = get("model").value === "live";
  if (!state.live) state.model = Number(get("model").value);
  Object.assign(state, {changes: [], undone: []});
  showModels();
  showMistakes();
  if (paper.code) tracer.request(); else reader.start();
});
on("beside", "change", () => {
  state.beside = get("beside").value === "" ? null : Number(get("beside").value);
  tracer.request();
});
on("mistakes-part", "toggle", showMistakes);

on("forward", "click", () => setMode("forward"));
on("back", "click", () => setMode("back"));
on("label", "change", () => {
  state.label = get("label").value === "" ? null : Number(get("label").value);
  tracer.request();
});
for (const button of get("pad").children)
  button.addEventListener("click", () => {
    const row = state.cell && network.rowOf(state.cell.name);
    if (row) keyOn({key: button.dataset.key, preventDefault() {}}, row);
  });

on("show-answer", "click", () => { answered = true; showPanel(); get("sum").focus(); });
on("check", "click", async () => {
  const {name, index} = told.cell;
  get("checked").textContent = "…";
  const cell = [name === "d.0" ? "image" : name.slice(2), index];
  const snapshot = state.live ? [frame.model.run, frame.model.step] : null;
  const result = await postJSON("check", {...asked(), snapshot, cell}).then((answer) => answer.json())
    .catch((error) => ({message: error.message}));
  if (result.message) { get("checked").textContent = result.message; return; }
  const [minus, plus] = result.losses;
  get("checked").textContent = `Nudged by ±${result.nudge} in float64, the loss is ${minus} and ${plus}: ` +
    `measured slope ${Number(result.measured.toPrecision(8))}, computed ${Number(result.computed.toPrecision(8))}. ` +
    (result.switched.length ? `A ReLU or a maximum switches within the nudge (${result.switched.join(", ")}): there is a kink, and the two may differ.` :
      result.agree ? "They agree." : "They differ.");
});
async function copy(text) {
  await navigator.clipboard.writeText(text).then(() => { get("checked").textContent = "Copied."; },
    () => { get("checked").textContent = "The browser does not let this page copy."; });
}
on("copy-text", "click", () => copy(asText(frame, told, hidden())));
on("copy-csv", "click", () => copy(asCSV(frame, told, hidden())));
on("copy-link", "click", () => { saveLink(); copy(location.href); });

on("edit", "submit", (event) => {
  event.preventDefault();
  const value = Number(get("edit-value").value.replace("−", "-").replace(",", "."));
  if (get("edit-value").value.trim() === "" || !Number.isFinite(value)) {
    get("checked").textContent = `a number is required; got "${get("edit-value").value}"`;
    return;
  }
  change(["edit", told.cell.name.replace(/^d\./, ""), told.cell.index, value]);
});
on("step", "submit", (event) => {
  event.preventDefault();
  if (takeSettings()) change(["step", frame.image, frame.label, state.step.lr, state.step.momentum, state.step.weight_decay]);
});
for (const name of Object.keys(SETTINGS)) on(name, "change", () => { if (takeSettings()) tracer.request(); });
function takeSettings() {
  const step = {};
  for (const [name, {fits}] of Object.entries(SETTINGS)) {
    const text = get(name).value.trim().replace(",", "."), value = Number(text);
    if (text === "" || !fits(value)) {
      get("drop").textContent = `${name.replace("_", " ")} cannot be ${get(name).value || "empty"}`;
      return false;
    }
    step[name] = value;
  }
  state.step = step;
  return true;
}
on("undo-change", "click", () => {
  state.undone = [...state.undone, state.changes.at(-1)];
  state.changes = state.changes.slice(0, -1);
  tracer.request();
});
on("redo-change", "click", () => {
  state.changes = [...state.changes, state.undone.at(-1)];
  state.undone = state.undone.slice(0, -1);
  tracer.request();
});
on("undo-all", "click", () => {
  Object.assign(state, {changes: [], undone: [...state.changes].reverse()});
  tracer.request();
});

on("quiz", "change", () => { state.quiz = get("quiz").checked; answered = false; showPanel(); saveLink(); });
for (const [id, name] of Object.entries(PARTS)) {
  const label = make("label", "", "field"), box = Object.assign(document.createElement("input"), {type: "checkbox", id: "part-" + id});
  label.append(box, ` ${name}`);
  get("parts").append(label);
  box.addEventListener("change", () => {
    state.without = Object.keys(PARTS).filter((part) => !get("part-" + part).checked);
    showParts();
    saveLink();
  });
}
function showParts() {
  for (const id of Object.keys(PARTS)) {
    get("part-" + id).checked = !state.without.includes(id);
    get(id).hidden = state.without.includes(id);
  }
  get("quiz").checked = state.quiz;
  showMode();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=range], [type=checkbox]), select, textarea");
  if (typing) return;
  const letter = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && letter === "z") {
    if (event.shiftKey) paper.redo(); else paper.undo();
  } else if ((event.ctrlKey || event.metaKey) && letter === "y") paper.redo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (letter === "f") setMode("forward");
  else if (letter === "b") setMode("back");
  else if (/^[0-9]$/.test(letter) && own) own.keep(Number(letter));
  else return;
  event.preventDefault();
});
const redraw = () => { network.colours = network.plan = null; if (frame && state.image !== null) { network.show(frame, state.mode); showPanel(); } };
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("hashchange", openLink);  // Not by replaceState.

// ---------------------------------------------------------------- Start

Object.assign(state, await fetch("models").then((answer) => answer.json()));
get("test").max = state.tests - 1;
get("label").append(Object.assign(make("option"), {value: ""}),
  ...Array.from({length: state.classes}, (_, n) => Object.assign(make("option", n), {value: n})));
get("pipeline").hidden = true;
get("training-part").hidden = !state.trains;
await openLink();
if (state.trains) {
  const image = () => state.image === null || state.image[0] === "t" ? null : state.image;
  own = new Own({postJSON, training, image, model: () => state.model}, state.classes);
  own.offer();
  await training.find();
  linked = false;  // What is trained from now on is shown.
}
