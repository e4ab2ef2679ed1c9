// Watch it learn: set up a training, steer it, and see what each step leaves. The server
// trains; the page asks for what is newer than what it has, so that nothing queues.

import {drawCurves, drawGrid, digitAt, stepAt} from "./curves.js";

const BETWEEN = 170;  // milliseconds from an answer to the next question: five pictures a second

const get = (id) => document.getElementById(id);
const on = (id, event, act) => get(id).addEventListener(event, act);

// Of a set-up: title, what is usual, and for some the choices; `live` ones can change on the way.
const FIELDS = {
  architecture: {title: "Layers", usual: "16C5-MP3-64C5-10N", wide: true},
  lr: {title: "Rate", usual: "0.1", live: true},
  momentum: {title: "Momentum", usual: "0.9", live: true},
  weight_decay: {title: "Weight decay", usual: "0.0001", live: true},
  schedule: {title: "Schedule", usual: "one-cycle", choices: ["constant", "one-cycle"]},
  batch_size: {title: "Batch", usual: "32"},
  epochs: {title: "Epochs", usual: "3"},
  label_smoothing: {title: "Smoothing", usual: "0.05"},
  augment: {title: "Distortions", usual: "0"},
  averaging: {title: "Averaging", usual: "0"},
  seed: {title: "Seed", usual: "0"},
  limit: {title: "Images", usual: "", hint: "all"},
  stop_at: {title: "Halt at", usual: "", hint: "99 %"},
};
const SMALL = {architecture: "8C5-MP3-16C5-10N", momentum: "0", weight_decay: "0", schedule: "constant", label_smoothing: "0"};
const LESSONS = {
  "none": [{}, ""],
  "a rate too high": [{...SMALL, architecture: "10N", lr: "20", momentum: "0.9"},
    "Each step overshoots: watch the loss stay far above that of guessing, and jump. Then go back to an earlier step, set the rate to 0.05, and go on."],
  "no ReLU alive": [{...SMALL, lr: "1"},
    "One large step pushes all biases and kernels so far down that no ReLU passes anything: no gradient comes back, and nothing is learned any more, at any rate. Look at the maps, and at the way back."],
  "a network that only memorises": [{...SMALL, architecture: "16C5-MP3-64C5-10N", lr: "0.05", momentum: "0.9", batch_size: "20", epochs: "200", limit: "100"},
    "A hundred images are soon known by heart: the accuracy on them reaches 100 %, on held-out images it does not. Change the number of images, or the distortions, and reset."],
};

export class Training {
  // `page` has `postJSON(path, value)`, `watch(run, step, key)`, `hold(run, step, key)`, `follow(number, run)`, `leave()`, `openTest(index)`
  // and `modelsChanged()`.
  constructor(page) {
    Object.assign(this, {page, state: null, runs: [], number: -1, walking: null, run: 0, timer: null, pulling: false});
    get("lesson").append(...Object.keys(LESSONS).map((name) => new Option(name, name)));
    this.buildSetups();
    this.listen();
  }

  // ---------------------------------------------------------------- Set-up

  buildSetups() {
    get("setups").replaceChildren(...["A", "B"].map((letter, k) => {
      const set = document.createElement("fieldset"), legend = document.createElement("legend");
      legend.textContent = k ? "B, beside it" : "Set-up";
      legend.id = "legend-" + letter;
      set.id = "setup-" + letter;
      set.hidden = Boolean(k);
      set.append(legend, ...Object.entries(FIELDS).map(([name, {title, usual, choices, hint, wide}]) => {
        const label = document.createElement("label"), input = document.createElement(choices ? "select" : "input");
        label.className = "field";
        if (choices) input.append(...choices.map((choice) => new Option(choice, choice)));
        else Object.assign(input, {type: "text", placeholder: hint || "", autocomplete: "off", spellcheck: false, className: wide ? "wide" : ""});
        input.id = `${letter}-${name}`;
        input.value = usual;
        label.append(title, " ", input);
        input.addEventListener("input", () => this.planSoon());
        input.addEventListener("change", () => this.change(k, name));
        return label;
      }));
      return set;
    }));
  }

  fill(letter, values) {
    for (const [name, {usual}] of Object.entries(FIELDS)) get(`${letter}-${name}`).value = values[name] ?? usual;
  }

  // The set-up as the server takes it; a text that is no number goes along, to be refused.
  read(letter) {
    const setup = {};
    for (const [name, {choices}] of Object.entries(FIELDS)) {
      const text = get(`${letter}-${name}`).value.trim(), value = Number(text.replace(",", "."));
      if (text === "" && FIELDS[name].usual === "") continue;
      setup[name] = choices || name === "architecture" || text === "" || !Number.isFinite(value) ? text : value;
      if (name !== "stop_at") continue;
      const share = Number(text.replace("%", "").replace(",", "."));
      if (Number.isFinite(share)) setup[name] = share > 1 || text.includes("%") ? share / 100 : share;
    }
    return setup;
  }
  get letters() { return get("race").checked ? ["A", "B"] : ["A"]; }

  planSoon() {
    clearTimeout(this.planning);
    this.planning = setTimeout(() => this.plan(), 250);
  }
  async plan() {
    const turn = this.planned = (this.planned || 0) + 1, told = [];
    for (const letter of this.letters) {
      const found = await this.page.postJSON("plan", {setup: this.read(letter)}).then((answer) => answer.json())
        .catch((error) => ({message: inWords(error.message)}));
      const many = (count) => count.toLocaleString("en");
      told.push(found.message || `${many(found.parameters)} parameters, ${many(found.multiply_adds)} multiply-adds an image; ` +
        `${many(found.steps)} steps an epoch` + (found.seconds ? `, about ${seconds(found.seconds)}` : ""));
      get(`${letter}-architecture`).setAttribute("aria-invalid", Boolean(found.message));
    }
    if (turn !== this.planned) return;
    get("plan").textContent = told.map((text, k) => (told.length > 1 ? "AB"[k] + ": " : "") + text).join(". ") + this.unlike() +
      (this.isOther ? ' Press "Reset" to train this in place of what is in training.' : "");
  }

  // Whether the fields show another set-up than what is in training.
  get isOther() {
    if (!this.runs.length) return false;
    const wanted = this.letters.map((letter) => this.read(letter)), {runs} = this;
    return wanted.length !== runs.length || wanted.some((setup, k) => Object.entries(FIELDS).some(([name, {live}]) =>
      !live && name !== "stop_at" && String(Number(setup[name] ?? NaN) || setup[name] || "") !== String(Number(runs[k].setup[name] ?? NaN) || runs[k].setup[name] || "")));
  }

  // In what a race is none from the same start, in words.
  unlike() {
    if (!get("race").checked) return "";
    const [a, b] = ["A", "B"].map((letter) => this.read(letter));
    const start = ["architecture", "seed"].some((name) => a[name] !== b[name]);
    const batches = start || ["batch_size", "limit"].some((name) => a[name] !== b[name]);
    return start ? ". They start from different weights, with other batches." :
      batches ? ". They start from the same weights, with other batches." : ". Both start from the same weights, with the same batches.";
  }

  // A changed field counts at once where it can; the others count from the next start.
  async change(run, name) {
    if (!FIELDS[name].live || !this.runs[run]) return;
    const value = this.read("AB"[run])[name];
    await this.order({do: "set", run, settings: {[name]: value}});
  }

  // ---------------------------------------------------------------- Steering

  listen() {
    on("training-part", "toggle", () => { if (get("training-part").open) { this.plan(); this.pull(); } });
    on("setup", "submit", (event) => event.preventDefault());
    on("race", "change", () => {
      get("setup-B").hidden = !get("race").checked;
      get("legend-A").textContent = get("race").checked ? "A" : "Set-up";
      if (get("race").checked) this.fill("B", Object.fromEntries(Object.keys(FIELDS).map((name) => [name, get("A-" + name).value])));
      this.plan();
    });
    on("lesson", "change", () => {
      const [values, text] = LESSONS[get("lesson").value];
      this.fill("A", values);
      get("lesson-text").textContent = text;
      this.plan();
    });
    on("train-run", "click", () => this.runs.length ? this.order({do: this.state.running ? "pause" : "run"}) : this.start({do: "run"}));
    on("train-step", "click", () => this.act({do: "steps", count: 1}));
    on("train-ten", "click", () => this.act({do: "steps", count: 10}));
    on("train-epoch", "click", () => this.act({do: "epoch"}));
    on("train-anew", "click", () => this.start());
    on("rescue-back", "click", () => this.back(this.rescue.run, this.rescue.step));
    on("walk", "input", () => this.walk(Number(get("walk").value)));
    on("walk-last", "click", () => { this.walking = null; this.show(); });
    on("walk-go", "click", () => { if (this.walking !== null) this.back(this.run, this.walking); });
    on("watch", "change", () => { this.run = Number(get("watch").value); this.walking = null; this.show(); });
    on("use", "click", async () => { get("used").textContent = await this.use(); });
    on("grid", "click", (event) => {
      const run = this.runs[this.run], at = digitAt(get("grid"), event);
      if (run && at !== null && at < run.looks_at.tests.length) this.page.openTest(run.looks_at.tests[at]);
    });
    on("curves", "click", (event) => {
      const step = stepAt(get("curves"), event, this.runs);
      const kept = this.runs[this.run]?.snapshots;
      if (kept) this.walk(kept.reduce((best, at, index) => Math.abs(at - step) < Math.abs(kept[best] - step) ? index : best, 0));
    });
    on("curves", "pointermove", (event) => { this.pointedAt = stepAt(get("curves"), event, this.runs); this.tellCurve(); });
    on("curves", "pointerleave", () => { this.pointedAt = null; this.tellCurve(); });
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.pull(); });
  }

  async act(order) {
    if (!this.runs.length) return this.start(order);
    this.walking = null;
    return this.order(order);
  }

  // End what is in training and set up anew, then do something; return the training's number.
  async start(then = null, setups = this.letters.map((letter) => this.read(letter))) {
    this.walking = null;
    this.run = 0;
    get("used").textContent = "";
    if (this.state?.running) await this.order({do: "pause"});
    if (!await this.order({do: "start", setups})) return null;
    this.plan();
    if (then) await this.order(then);
    return this.number;
  }
  begin(setups) {
    get("training-part").open = true;
    return this.start({do: "run"}, setups);
  }

  async order(order) {
    const state = await this.page.postJSON("train", order).then((answer) => answer.json()).catch((error) => {
      this.refused = inWords(error.message);
      get("trouble").textContent = this.refused;
      return null;
    });
    if (!state) return false;
    this.refused = "";
    this.take(state);
    return true;
  }

  async back(run, step) {
    this.walking = null;
    await this.order({do: "back", run, step});
  }

  // Write a network where "predict" and "draw" find it; return what has become of it.
  async use(which = {number: this.number, run: this.run, step: this.shownStep}) {
    const done = await this.page.postJSON("use", which).then((answer) => answer.json()).catch((error) => ({message: error.message}));
    if (!done.message) await this.page.modelsChanged(done.model);
    return done.message || `Written, as it was after step ${which.step.toLocaleString("en")}: "predict" and "draw" use it from now on. ` +
      "If there was a model before, it is now in model-before.npz.";
  }

  // ---------------------------------------------------------------- What is new

  async pull() {
    clearTimeout(this.timer);
    if (this.pulling || document.hidden || !get("training-part").open) return;
    this.pulling = true;
    // Looks come later than the points of their steps.
    const known = this.runs.length && `?generations=${this.runs.map((run) => run.generation)}&since=${this.runs.map((run) => run.looks.at(-1)?.[0] ?? 0)}`;
    const state = await fetch("training" + (known || "")).then((answer) => answer.ok ? answer.json() : null).catch(() => null);
    this.pulling = false;
    if (state) this.take(state);
    else {
      get("training-state").textContent = "no answer: is the program still running?";
      this.again(2000);
    }
  }
  again(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.pull(), wait);
  }

  // Take up a state: all of it, or what is newer than what is known.
  take(state) {
    if (this.state && state.time < this.state.time) return;  // A later answer has arrived before.
    const same = state.number === this.number && state.runs.length === this.runs.length;
    if (!same && state.runs.some((run) => !run.looks_at)) {  // Another page has started anew.
      Object.assign(this, {runs: [], number: -1, foreign: true});
      return this.again(0);
    }
    this.runs = state.runs.map((run, k) => {
      const old = same ? this.runs[k] : null;
      if (!old || run.looks_at || run.generation !== old.generation) return {...old, ...run};
      const newer = (list, more, at) => [...list, ...more.filter((item) => item[0] > at)];
      return {...old, ...run, points: newer(old.points, run.points, old.points.at(-1)?.[0] ?? 0),
        looks: newer(old.looks, run.looks, old.looks.at(-1)?.[0] ?? -1)};
    });
    if (!same) Object.assign(this, {number: state.number, run: 0, walking: null});
    this.state = state;
    this.show();
    if (this.foreign) this.adopt();
    this.foreign = false;
    this.again(state.running ? BETWEEN : 1000);
  }

  // Stay at a step, from which somebody makes changes.
  hold(run, step) {
    this.run = run;
    this.walking = step;  // The page may not have been told of it yet.
    this.page.hold(run, step, this.key);
    if (this.isRunning) this.order({do: "pause"}); else this.show();
  }
  // What tells a step from all others, also after going back.
  get key() { return [this.number, this.runs[this.run].backs, this.run, this.shownStep].join(); }

  // Whether a training is there already, when the page is opened.
  async find() {
    const state = await fetch("training").then((answer) => answer.json()).catch(() => null);
    if (!state?.runs.length) return;
    get("training-part").open = true;
    this.take(state);
    this.adopt();
  }
  // Show in the fields what is in training.
  adopt() {
    if (this.runs.some(({setup}) => setup.own)) return;
    get("race").checked = this.runs.length > 1;
    get("setup-B").hidden = !get("race").checked;
    this.runs.forEach(({setup}, k) => {
      for (const name of Object.keys(FIELDS)) get(`${"AB"[k]}-${name}`).value = typeof setup[name] === "boolean" ? Number(setup[name]) : setup[name] ?? "";
    });
    this.plan();
  }

  // The step of a training that would be lost, or 0.
  get unfinishedStep() { return Math.max(0, ...this.runs.filter((run) => run.state === "training").map((run) => run.step)); }
  get isRunning() { return Boolean(this.state?.running); }
  get shownStep() { return this.walking ?? this.runs[this.run]?.snapshots.at(-1) ?? 0; }

  // ---------------------------------------------------------------- Shown

  show() {
    const {runs, state} = this, run = runs[this.run];
    get("watching").hidden = !run;
    get("train-run").textContent = !run || !run.step && !state.running ? "Start" : state.running ? "Pause" : "Go on";
    get("watch-field").hidden = runs.length < 2;
    for (const id of ["train-step", "train-ten", "train-epoch"]) get(id).disabled = Boolean(run && state.running);
    if (!run) {
      get("training-state").textContent = "";
      get("trouble").textContent = "";
      get("rescue").hidden = true;
      return this.page.leave();
    }
    get("watch").value = this.run;
    get("training-state").textContent = runs.map((one, k) => (runs.length > 1 ? "AB"[k] + ": " : "") + describe(one)).join(" ");
    this.showTrouble();
    drawCurves(get("curves"), runs, this.walking);
    this.tellCurve();
    this.showLook(run);
    const walk = get("walk"), at = this.walking === null ? run.snapshots.length - 1 : run.snapshots.indexOf(this.walking);
    if (at < 0) {  // It is kept no more, or not yet known.
      if (this.walking < run.snapshots.at(-1)) this.walking = null;
      return;
    }
    walk.max = run.snapshots.length - 1;
    walk.value = at;
    const shown = this.shownStep.toLocaleString("en");
    walk.setAttribute("aria-valuetext", `step ${shown}`);
    get("walk-step").textContent = `${shown} (${run.snapshots.length} are kept: the last ones, and some before)`;
    get("walk-last").disabled = this.walking === null;
    get("walk-go").disabled = this.walking === null || this.walking === run.step;
    this.page.follow(this.number, run);
    this.page.watch(this.run, this.walking, this.key);
  }

  showTrouble() {
    const troubles = this.runs.map((run, k) => {
      const text = run.state === "failed" ? run.message : run.trouble;
      return text ? {text: (this.runs.length > 1 ? "AB"[k] + ": " : "") + text, run: k, step: run.best} : null;
    }).filter(Boolean);
    const text = [...troubles.map((trouble) => trouble.text), this.refused].filter(Boolean).join(" ");
    if (get("trouble").textContent !== text) get("trouble").textContent = text;
    this.rescue = troubles.find(({run, step}) => step !== null && step < this.runs[run].step) || null;
    get("rescue").hidden = !this.rescue;
    if (this.rescue) get("rescue-back").textContent = `Go back to step ${this.rescue.step.toLocaleString("en")}`;
  }

  // What belongs to the last look, anew only with another one.
  showLook(run) {
    const key = [this.number, this.run, run.last?.step, run.generation, get("points").closest("details").open].join();
    if (key === this.looked) return;
    this.looked = key;
    document.querySelector(".watch").classList.toggle("unseen", !run.last);
    if (!run.last) return;
    this.showGrid(run);
    this.showLayers(run);
    this.showPoints(run);
  }

  showGrid({looks_at: seen, last}) {
    const right = last.read.filter((read, k) => read === seen.labels[k]).length;
    drawGrid(get("grid"), seen, last.read);
    get("grid-text").textContent = `After step ${last.step.toLocaleString("en")}: ${right} of ${seen.labels.length} test images are right. ` +
      "Those that are read wrong are framed and crossed; a row a class. Click one to see its numbers.";
    get("grid").setAttribute("aria-label", `${right} of ${seen.labels.length} test images are read right after step ${last.step}`);
  }

  showLayers(run) {
    const {last} = run, table = get("layers");
    const row = (cells, tag = "td") => {
      const line = document.createElement("tr");
      cells.forEach((text, at) => {
        const cell = document.createElement(at && tag === "td" ? "td" : "th");
        if (!at || tag === "th") cell.scope = tag === "th" ? "col" : "row";
        cell.textContent = text;
        line.append(cell);
      });
      return line;
    };
    const head = document.createElement("thead"), body = document.createElement("tbody"), caption = document.createElement("caption");
    caption.textContent = `After step ${last.step.toLocaleString("en")}`;
    head.append(row(["array", "step / size", "dead maps"], "th"));
    for (const [name, share] of Object.entries(last.sizes)) {
      const index = /^biases\.(\d+)$/.exec(name)?.[1], dead = Object.entries(last.dead).find(([key]) => key.split(":")[0] === index);
      body.append(row([name, share === null ? "–" : share.toExponential(1).replace("-", "−"), dead ? deadMaps(dead[1]) : ""]));
    }
    table.replaceChildren(caption, head, body);
  }

  // The looks as a table, for who cannot see the curve.
  showPoints(run) {
    const table = get("points");
    if (!table.closest("details").open) return;
    const lines = run.looks.slice(-100).reverse().map(([step, training, held]) => [step, training[0], training[1], held[0], held[1]]);
    const rows = [["step", "training loss", "accuracy", "held-out loss", "accuracy"], ...lines].map((cells, at) => {
      const line = document.createElement("tr");
      line.append(...cells.map((value) => Object.assign(document.createElement(at ? "td" : "th"),
        {textContent: typeof value === "number" && !Number.isInteger(value) ? value.toFixed(4) : value ?? "–"})));
      return line;
    });
    table.replaceChildren(...rows);
  }

  tellCurve() {
    const at = this.pointedAt, {runs} = this, lines = [];
    for (const [k, run] of runs.entries()) {
      const near = (list) => list.reduce((best, item) => !best || Math.abs(item[0] - at) < Math.abs(best[0] - at) ? item : best, null);
      const point = at === null || at === undefined ? run.points.at(-1) : near(run.points);
      const look = at === null || at === undefined ? run.looks.at(-1) : near(run.looks);
      if (!point || !look) continue;
      lines.push((runs.length > 1 ? "AB"[k] + ": " : "") + `step ${point[0].toLocaleString("en")}: loss ${point[1].toPrecision(4)} at rate ${Number(point[2].toPrecision(3))}; ` +
        `after step ${look[0].toLocaleString("en")}: ${percent(look[1][1])} of ${run.looks_at.training.toLocaleString("en")} training images` +
        (run.looks_at.held_out ? `, ${percent(look[2][1])} of the same ${run.looks_at.held_out.toLocaleString("en")} held-out images` : ""));
    }
    get("curves-text").textContent = lines.join(". ");
  }

  // Show a kept step, by its index among all that are kept.
  async walk(index) {
    const {snapshots} = this.runs[this.run];
    this.walking = snapshots[Math.min(Math.max(index, 0), snapshots.length - 1)];
    this.show();
    if (this.state.running) await this.order({do: "pause"});
  }
}

// How many maps are dead, and which.
const deadMaps = (maps) => maps.length ? `${maps.length}: ${maps.slice(0, 6).join(", ")}${maps.length > 6 ? ", …" : ""}` : "0";
// A message that names settings, by the titles of their fields.
const inWords = (message) => message.replace(/\b[a-z_]+\b/g, (word) => FIELDS[word]?.title || word);
const percent = (share) => share === null || share === undefined ? "–" : (100 * share).toFixed(1) + " %";
const seconds = (time) => time < 1 ? "1 s" : time < 100 ? Math.round(time) + " s" : Math.round(time / 60) + " min";

// Where a network stands, in words.
function describe(run) {
  const epoch = (run.step / run.in_epoch).toFixed(2), parts = [`step ${run.step.toLocaleString("en")}, epoch ${epoch} of ${run.epochs}`];
  if (run.rate) parts.push(`rate ${Number(run.rate.toPrecision(3))}`);
  if (run.speed) parts.push(`${Math.round(run.speed).toLocaleString("en")} images a second`);
  if (run.whole) parts.push(`after step ${run.whole.step.toLocaleString("en")} ${(100 * run.whole.accuracy).toFixed(2)} % of all ${run.whole.images.toLocaleString("en")} held-out images are right`);
  return parts.join("; ") + ({finished: "; finished", failed: "; ended"}[run.state] || "") + (run.message && run.state !== "failed" ? `; ${run.message}` : "") + ".";
}
