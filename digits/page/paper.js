// The paper: strokes on nothing or on a picture, each change a state that can be undone.

const EMPTY = {strokes: [], picture: null, file: null, code: null};
const MOVES = {ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10]};

export class Paper {
  // `changed` is called after every change, and `ended` after a stroke; `width` returns the
  // width of the pen in pixels.
  constructor(canvas, {changed, ended, width}) {
    Object.assign(this, {canvas, changed, ended, width, states: [EMPTY], now: 0});
    this.pen = canvas.getContext("2d", {willReadFrequently: true});  // At every stroke.
    this.drawing = null;  // id of the pointer that draws
    this.at = [140, 60];  // the keyboard's pen
    this.lowered = false;
    this.listen();
  }

  // ---------------------------------------------------------------- States

  get state() { return this.states[this.now]; }
  get blank() { return !this.state.picture && !this.state.strokes.length; }
  // What is read in place of the paper's pixels, as long as nobody has drawn on it: a file of
  // any size, or the code of an image that the network takes as it is.
  get file() { return this.state.strokes.length ? null : this.state.file; }
  get code() { return this.state.strokes.length ? null : this.state.code; }
  get canUndo() { return this.now > 0; }
  get canRedo() { return this.now < this.states.length - 1; }

  push(state) {
    this.states = [...this.states.slice(0, this.now + 1), state].slice(-200);
    this.now = this.states.length - 1;
    this.update();
  }
  step(by) {
    const next = this.now + by;
    if (next < 0 || next >= this.states.length) return;
    this.now = next;
    this.lowered = false;
    this.update();
  }
  undo() { this.step(-1); }
  redo() { this.step(1); }
  clear() {
    this.lowered = false;
    if (!this.blank) this.push(EMPTY);
  }
  // Lay a picture down: an image, and a file or a code that it was made from.
  lay(picture, source = {}) {
    this.lowered = false;
    this.push({...EMPTY, picture, ...source});
  }
  update() {
    this.paint();
    this.changed();
  }

  // ---------------------------------------------------------------- Strokes

  begin(place) {
    const stroke = {width: this.width(), places: [place]};
    this.push({...this.state, strokes: [...this.state.strokes, stroke]});
  }
  extend(place) {
    this.state.strokes.at(-1).places.push(place);
    this.update();
  }

  paint() {
    const {pen, canvas} = this, {picture, strokes} = this.state;
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingEnabled = !this.state.code;
    if (picture) pen.drawImage(picture, ...this.frame());
    pen.strokeStyle = "#000";
    pen.lineCap = pen.lineJoin = "round";
    for (const {width, places} of strokes) {
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(...places[0]);
      for (const place of places) pen.lineTo(...place);
      pen.stroke();
    }
  }

  // Left, top, width and height of the picture on the paper, or of the whole paper.
  frame() {
    const {canvas, state: {picture}} = this;
    if (!picture) return [0, 0, canvas.width, canvas.height];
    const scale = canvas.width / Math.max(picture.width, picture.height);
    const size = [picture.width * scale, picture.height * scale];
    return [(canvas.width - size[0]) / 2, (canvas.height - size[1]) / 2, ...size];
  }

  // The grey levels of the paper, a byte per pixel. Photographs on it may have colours.
  levels() {
    const {data} = this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height);
    const levels = new Uint8Array(data.length / 4);
    for (let pixel = 0; pixel < levels.length; pixel++) {
      const at = 4 * pixel;
      levels[pixel] = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2] + 0.5;
    }
    return levels;
  }

  // ---------------------------------------------------------------- Mouse, finger, keyboard

  listen() {
    const {canvas} = this;
    const placeOf = (event) => {
      const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
      return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (this.drawing !== null || event.button !== 0) return;
      this.drawing = event.pointerId;
      canvas.setPointerCapture(this.drawing);
      this.begin(placeOf(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId === this.drawing) this.extend(placeOf(event));
    });
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, (event) => {
        if (event.pointerId !== this.drawing) return;
        this.drawing = null;
        this.ended();
      });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") {
      this.lowered = !this.lowered;
      if (this.lowered) this.begin(this.at);
    } else if (event.key in MOVES) {
      this.at = this.at.map((side, axis) => Math.min(Math.max(side + MOVES[event.key][axis], 0), 280));
      if (this.lowered) this.extend(this.at);
    } else return;
    event.preventDefault();
    this.paint();
    this.pen.fillStyle = this.lowered ? "#d62728" : "#1f77b4";
    this.pen.fillRect(this.at[0] - 3, this.at[1] - 3, 6, 6);
  }
}

// An image of the network, dark on light, as a picture for the paper.
export function pictureOf({data, shape: [height, width, channels]}) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
  for (let pixel = 0; pixel < height * width; pixel++) {
    const level = 255 - 255 * Math.min(Math.max(data[pixel * channels], 0), 1);
    image.data.set([level, level, level, 255], 4 * pixel);
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}
