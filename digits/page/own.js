// Digits of one's own: "this is a 7" keeps what is drawn or photographed, and the network
// that is chosen can learn them, mixed with MNIST's.

import {pictureOf} from "./paper.js";

const get = (id) => document.getElementById(id);
const percent = (share) => (100 * share).toFixed(2) + " %";
// Learning them changes little else: few steps at a small rate. Chosen on held-out images.
const SETUP = {own: true, limit: 4000, lr: 0.01, momentum: 0.9, epochs: 1, augment: 0.5, label_smoothing: 0.05};

export class Own {
  // `page` has `postJSON(path, value)`, `image()`, the code of what is shown or null, `model()`,
  // the number of the model that learns, and `training`.
  constructor(page, classes) {
    Object.assign(this, {page, own: null, learning: null});
    get("teach").append(...Array.from({length: classes}, (_, digit) => {
      const button = document.createElement("button");
      button.textContent = digit;
      button.addEventListener("click", () => this.keep(digit));
      return button;
    }));
    get("learn").addEventListener("click", () => this.learn());
    get("use-learned").addEventListener("click", async () => {
      get("learned").textContent = `${this.told} ${await page.training.use(this.learned)}`;
    });
    this.take(fetch("own"));
  }

  // Offer to keep what is shown.
  offer() {
    get("teach-part").hidden = this.page.image() === null;
    if (this.kept !== this.page.image()) get("taught").textContent = "";
  }

  async keep(digit) {
    const image = this.page.image();
    if (image === null) return;
    // What is shown has been kept already: it was another digit after all.
    const again = this.kept === image && this.own?.labels.length > 0;
    const order = again ? {do: "relabel", index: this.own.labels.length - 1, checksum: this.own.checksum} : {do: "keep", image};
    const done = await this.take(this.page.postJSON("own", {...order, label: digit}), "taught");
    if (!done) return;
    this.kept = image;
    get("taught").textContent = `Kept as a ${digit}. You have ${this.many()}: "Learn mine" teaches the network.`;
    get("own-part").open = true;
  }

  many() {
    const count = this.own.labels.length;
    return `${count} ${count === 1 ? "digit" : "digits"} of your own`;
  }

  // Take up what the server says of all own digits, or show what is wrong.
  async take(request, place = "learned") {
    const own = await request.then((answer) => answer.json()).catch((error) => ({message: error.message}));
    if (own.message) {
      if (/look at them again/.test(own.message)) await this.take(fetch("own"));
      get(place).textContent = own.message;
      get("own-part").hidden = false;
      return false;
    }
    this.own = own;
    this.show();
    return true;
  }

  show() {
    const {labels, pixels, path, checksum} = this.own, size = 28 * 28;
    const bytes = Uint8Array.from(atob(pixels), (letter) => letter.charCodeAt(0));
    get("own-part").hidden = !labels.length && !get("own-part").open;
    get("own-title").textContent = labels.length ? `Your own digits (${labels.length})` : "Your own digits: none yet";
    get("own-path").textContent = path;
    get("learn").disabled = !labels.length;
    get("own").replaceChildren(...labels.map((label, index) => {
      const figure = document.createElement("figure"), select = document.createElement("select"), remove = document.createElement("button");
      const data = Float32Array.from(bytes.subarray(index * size, (index + 1) * size), (level) => level / 255);
      select.append(...Array.from({length: 10}, (_, digit) => new Option(digit, digit)));
      select.value = label;
      select.setAttribute("aria-label", `Digit ${index + 1} is a`);
      select.addEventListener("change", () => this.take(this.page.postJSON("own", {do: "relabel", index, label: Number(select.value), checksum})));
      remove.textContent = "✕";
      remove.setAttribute("aria-label", `Remove digit ${index + 1}, a ${label}`);
      remove.addEventListener("click", () => {
        this.kept = null;  // Which was the last is not known any more.
        this.take(this.page.postJSON("own", {do: "remove", index, checksum}));
      });
      figure.append(pictureOf({data, shape: [28, 28, 1]}), select, remove);
      return figure;
    }));
  }

  async learn() {
    const {training} = this.page, at = training.unfinishedStep;
    if (at && this.warned !== training.number) {
      this.warned = training.number;
      get("learned").textContent = `This ends the training, which stands at step ${at.toLocaleString("en")}. Press again to go on.`;
      return;
    }
    get("learned").textContent = "learning …";
    get("use-learned").hidden = true;
    this.told = "";
    this.learned = null;
    this.learning = await training.begin([{...SETUP, start: this.page.model()}]);
    if (this.learning === null) get("learned").textContent = training.refused;
  }

  // Tell what has been learned, from the state of a training.
  follow(number, run) {
    if (this.learned && number !== this.learned.number) get("use-learned").hidden = true;  // It is gone.
    if (this.learning !== null && number > this.learning) {
      this.learning = null;
      get("learned").textContent = "Another training has ended the learning.";
    }
    if (number !== this.learning || !run.scores.before) return;
    const {before, after} = run.scores, of = (name) => before[name].images.toLocaleString("en");
    if (run.state === "failed") { get("learned").textContent = run.message; return; }
    if (!after) { get("learned").textContent = `learning: step ${run.step.toLocaleString("en")} of ${run.in_epoch * run.epochs} …`; return; }
    this.told = `Learned. Right of your own ${of("own")}: ${percent(before.own.accuracy)} before, ${percent(after.own.accuracy)} after; ` +
      `of ${of("tests")} test images: ${percent(before.tests.accuracy)} before, ${percent(after.tests.accuracy)} after.`;
    get("learned").textContent = this.told;
    get("use-learned").hidden = false;
    this.learned = {number, run: 0, step: run.step};
    this.learning = null;
  }
}
