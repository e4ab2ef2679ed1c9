// The address as a lesson: what is shown stands behind the "#", and is checked when opened.

// Parts of the page that a link can leave out: their elements, and what they are called.
export const PARTS = {
  "paper-part": "paper", "answer-part": "answer", "tests-part": "test images",
  "mistakes-part": "mistakes", "step-part": "step", "loupes": "enlarged maps",
};
const MOST_CHANGES = 100;
// Of a step: what is usual, and what is allowed.
export const SETTINGS = {
  lr: {usual: 0.01, fits: (value) => value > 0 && value <= 1000},
  momentum: {usual: 0, fits: (value) => value >= 0 && value < 1},
  weight_decay: {usual: 0, fits: (value) => value >= 0 && value <= 1},
};

// The text behind "#" for a state.
export function toLink(state) {
  const fields = new URLSearchParams();
  const set = (key, value) => { if (value !== null && value !== undefined && value !== "") fields.set(key, value); };
  set("net", state.net);
  set("image", state.image);
  set("label", state.label);
  if (state.cell) set("at", `${state.cell.name}:${state.cell.index}`);
  if (state.mode === "back") set("mode", "back");
  if (state.quiz) set("quiz", "1");
  if (state.beside) set("beside", state.beside);
  set("without", state.without.join(" "));
  if (state.changes.length) set("changes", JSON.stringify(state.changes));
  for (const [name, {usual}] of Object.entries(SETTINGS))
    if (state.step[name] !== usual) set(name, state.step[name]);
  return fields.toString();
}

// The state of a link, and what is wrong with it, in words. What is wrong is left out.
export function fromLink(text) {
  const fields = new URLSearchParams(text), wrong = [], state = {without: [], changes: [], step: {}};
  const take = (key, check, convert = (value) => value) => {
    const value = fields.get(key);
    if (value === null) return undefined;
    if (check(value)) return convert(value);
    wrong.push(`${key} in the link cannot be read; got ${value.slice(0, 40)}`);
    return undefined;
  };
  state.net = take("net", (v) => /^([0-9a-f]{8}|training)$/.test(v));
  state.image = take("image", (v) => /^(t\d{1,9}|p[\w-]*)$/.test(v));
  state.label = take("label", (v) => /^\d{1,4}$/.test(v), Number);
  state.cell = take("at", (v) => /^[\w.]{1,40}:\d{1,9}$/.test(v), (v) => {
    const [name, index] = v.split(":");
    return {name, index: Number(index)};
  });
  state.mode = take("mode", (v) => v === "back" || v === "forward") || "forward";
  state.quiz = take("quiz", (v) => v === "1") === "1";
  state.beside = take("beside", (v) => /^[0-9a-f]{8}$/.test(v));
  state.without = take("without", (v) => v.split(" ").every((part) => part in PARTS), (v) => v.split(" ")) || [];
  for (const [name, {fits}] of Object.entries(SETTINGS)) {
    const value = take(name, (v) => v !== "" && fits(Number(v)), Number);
    if (value !== undefined) state.step[name] = value;
  }
  state.changes = take("changes", isChanges, JSON.parse) || [];
  return {state, wrong};
}

// The server checks the rest: names, indices and ranges.
function isChanges(text) {
  try {
    const changes = JSON.parse(text);
    return Array.isArray(changes) && changes.length <= MOST_CHANGES &&
      changes.every((change) => Array.isArray(change) && ["edit", "step"].includes(change[0]));
  } catch {
    return false;
  }
}
