// The arithmetic of one number: what it was made of, as terms, lines and a result.
//
// The result is the class's; the terms are multiplied and added here only to spell it out,
// in double precision, and what float32 has rounded is a line of its own. Terms hold
// references {name, index}, from which the highlights are drawn, too.

import {kernelPlace, place, valueOf} from "./frame.js";
import {joinsOf} from "./relations.js";

const LISTED = 30;  // terms of one group; beyond, the ten largest and the rest as a subtotal
const LARGEST = 10;

// ---------------------------------------------------------------- Names

// Where a number stands, in words; counted from 0, as NumPy does.
export function nameOf(frame, {name, index}) {
  if (name === "loss") return "loss";
  if (name.startsWith("d.")) return "derivative by " + nameOf(frame, {name: sourceOf(name), index});
  if (name.startsWith("step.")) {
    const step = frame.steps[Number(name.slice(5))];
    if (step.kind === "softmax") return `probability of ${index}`;
    if (step.kind === "scores") return `score of ${index}`;
    if (step.kind === "flatten") return `flattened, number ${index}`;
    const [row, column, channel] = place(index, step.shape);
    const map = step.shape[2] > 1 || step.kind !== "image" ? `map ${channel}, ` : "";
    return `${shortTitle(step)}, ${map}row ${row}, column ${column}`;
  }
  if (name === "W_dense") {
    const classes = frame.arrays.W_dense.shape[1];
    return `weight from number ${Math.floor(index / classes)} to class ${index % classes}`;
  }
  if (name === "B_dense") return `bias of class ${index}`;
  const token = frame.steps[userOf(frame, name)].token;
  if (name.startsWith("biases.")) return `bias of ${token}, map ${index}`;
  const [filter, channel, row, column] = kernelPlace(index, frame.arrays[name].shape);
  return `kernel of ${token}, filter ${filter}, channel ${channel}, row ${row}, column ${column}`;
}

function shortTitle(step) {
  if (step.kind === "image") return "image";
  return step.kind === "ReLU" ? `ReLU of ${step.token}` : step.token;
}

// The array whose derivative is called `name`.
export const sourceOf = (name) => /^d\.\d/.test(name) ? "step." + name.slice(2) : name.slice(2);

// The step that uses a parameter.
export function userOf(frame, name) {
  const [kind, index] = name.split(".");
  if (index === undefined) return frame.steps.findIndex((step) => step.kind === "scores");
  const wanted = kind === "kernels" ? "convolution" : "ReLU";
  return frame.steps.findIndex((step) => step.kind === wanted && step.index === Number(index));
}

// ---------------------------------------------------------------- Forward

const forward = {
  image(frame, k, index) {
    return {
      sentence: "A pixel: 0 is paper, 1 is ink. Digits are scaled into 20x20 pixels, and their " +
        "mass is centred in 28x28, as MNIST has them.",
      terms: [], shown: valueOf(frame, {name: "step.0", index}),
    };
  },

  convolution(frame, k, index) {
    const step = frame.steps[k], kernel = frame.arrays[`kernels.${step.index}`];
    const [, , filter] = place(index, step.shape), channels = kernel.shape[1];
    const terms = joinsOf(frame, k, {output: index}).map((join) => {
      const [, channel, row, column] = kernelPlace(join.weight, kernel.shape);
      return {
        group: `channel ${channel}`, label: `${row}, ${column}`,
        a: {name: `step.${k - 1}`, index: join.input},
        b: {name: `kernels.${step.index}`, index: join.weight},
      };
    });
    const outside = channels * step.window[0] * step.window[1] - terms.length;
    const bias = {name: `biases.${step.index}`, index: filter};
    const next = frame.steps[k + 1].kind === "pooling" ? "The network pools first, which gives " +
      "the same numbers with less work, and then adds" : "Next, the network adds";
    return {
      sentence: "The window of the step before times the kernel, place by place." +
        (outside ? ` ${outside} places lie outside of the map: zeros.` : ""),
      headings: ["window", "kernel"], terms, ...summed(frame, {name: `step.${k}`, index}, terms),
      after: [{label: `${next} the bias of map ${filter}`, value: valueOf(frame, bias)}],
    };
  },

  pooling(frame, k, index) {
    const won = frame.arrays[`winners.${k}`].data[index], step = frame.steps[k];
    const shown = valueOf(frame, {name: `step.${k}`, index});
    const terms = joinsOf(frame, k, {output: index}).map(({input, offset}) => ({
      label: `${Math.floor(offset / step.window[1])}, ${offset % step.window[1]}`,
      a: {name: `step.${k - 1}`, index: input}, note: offset === won ? "largest, wins" : "",
      won: offset === won,
    }));
    const equal = terms.filter(({a}) => valueOf(frame, a) === shown).length;
    return {
      sentence: "The largest number of the window; where it stood is remembered for the way back." +
        (equal > 1 ? ` ${equal} are equal: of these the first wins, alone.` : ""),
      headings: ["window"], terms, result: "maximum", exact: Math.max(...terms.map((t) => valueOf(frame, t.a))),
      shown,
    };
  },

  ReLU(frame, k, index) {
    const step = frame.steps[k], [{weight}] = joinsOf(frame, k, {output: index});
    const input = {name: `step.${k - 1}`, index}, bias = {name: `biases.${step.index}`, index: weight};
    const z = valueOf(frame, input) + valueOf(frame, bias);
    return {
      sentence: z > 0 ? "Positive: ReLU lets it pass." : "Not positive: ReLU makes it 0.",
      headings: ["number"],
      terms: [{label: "from the step before", a: input}, {label: "+ bias", a: bias}],
      lines: [{label: "z, their sum", value: z}],
      result: "max(z, 0)", exact: Math.max(z, 0), shown: valueOf(frame, {name: `step.${k}`, index}),
    };
  },

  flatten(frame, k, index) {
    const shape = frame.steps[k - 1].shape, [row, column, channel] = place(index, shape);
    const input = {name: `step.${k - 1}`, index};
    return {
      sentence: `The maps are written into one row: number ${index} = (row ${row} x ${shape[1]} + ` +
        `column ${column}) x ${shape[2]} + map ${channel}. No arithmetic.`,
      headings: ["number"], terms: [{label: `map ${channel}, ${row}, ${column}`, a: input}],
      result: "the same number", exact: valueOf(frame, input),
      shown: valueOf(frame, {name: `step.${k}`, index}),
    };
  },

  scores(frame, k, index) {
    const terms = joinsOf(frame, k, {output: index}).map(({input, weight}) => ({
      label: `number ${input}`, a: {name: `step.${k - 1}`, index: input},
      b: {name: "W_dense", index: weight},
    }));
    const bias = {name: "B_dense", index};
    return {
      sentence: `Each flattened number times its weight for class ${index}, and the class's bias.`,
      headings: ["flattened", "weight"], terms,
      ...summed(frame, {name: `step.${k}`, index}, terms, [{label: "+ bias", value: valueOf(frame, bias), ref: bias}]),
    };
  },

  softmax(frame, k, index) {
    const scores = frame.arrays[`step.${k - 1}`].data, most = Math.max(...scores);
    const terms = joinsOf(frame, k, {output: index}).map(({input}) => ({
      label: `class ${input}`, a: {name: `step.${k - 1}`, index: input},
      value: Math.exp(scores[input] - most), own: input === index,
    }));
    const sum = terms.reduce((total, {value}) => total + value, 0);
    return {
      sentence: `Each score less the largest, ${number(most, frame)}, so that no power overflows; ` +
        "its exponential; and the share of class " + index + " in the sum of all.",
      headings: ["score"], product: "e^(score − largest)", terms,
      lines: [{label: "sum of all", value: sum},
        {label: `class ${index} of it`, value: Math.exp(scores[index] - most)}],
      result: "quotient", exact: Math.exp(scores[index] - most) / sum,
      shown: valueOf(frame, {name: `step.${k}`, index}),
    };
  },
};

function loss(frame) {
  const k = frame.steps.length - 1, {data} = frame.arrays[`step.${k}`], {smoothing} = frame.model;
  const least = frame.arrays[`step.${k}`].data instanceof Float64Array ? 2 ** -1022 : 2 ** -126;
  const minusLog = (p) => -Math.log(Math.max(p, least)), own = minusLog(data[frame.label]);
  const terms = Array.from(data, (p, n) => ({
    label: `class ${n}` + (n === frame.label ? ", the true one" : ""),
    a: {name: `step.${k}`, index: n}, value: minusLog(p), own: n === frame.label,
  })).filter(({own}) => own || smoothing);
  const mean = terms.reduce((total, {value}) => total + value, 0) / data.length;
  const lines = smoothing ? [
    {label: `${1 - smoothing} x that of the true class`, value: (1 - smoothing) * own},
    {label: `${smoothing} x the mean of all (label smoothing)`, value: smoothing * mean}] : [];
  return {
    sentence: "The cross-entropy: the less probable the true class, the larger.",
    headings: ["probability"], product: "−log p", terms, lines, result: "loss",
    exact: smoothing ? (1 - smoothing) * own + smoothing * mean : own, shown: frame.loss,
  };
}

// ---------------------------------------------------------------- Backward

// The derivative by what step k takes, from that by its result.
const backward = {
  convolution(frame, k, index) {
    const step = frame.steps[k], {shape} = frame.arrays[`kernels.${step.index}`];
    const terms = joinsOf(frame, k, {input: index}).map(({output, weight}) => {
      const [row, column, filter] = place(output, step.shape);
      const [, , down, across] = kernelPlace(weight, shape);
      return {
        group: `map ${filter}`, label: `${row}, ${column} by kernel ${down}, ${across}`,
        a: {name: `d.${k}`, index: output}, b: {name: `kernels.${step.index}`, index: weight},
      };
    });
    return {
      sentence: "Each number that used this one, its derivative times the kernel's number that " +
        "joined them: the kernel turned around.",
      headings: ["derivative", "kernel"], terms, ...summed(frame, {name: `d.${k - 1}`, index}, terms),
    };
  },

  pooling(frame, k, index) {
    const winners = frame.arrays[`winners.${k}`].data, step = frame.steps[k];
    const terms = joinsOf(frame, k, {input: index}).map(({output, offset}) => {
      const [row, column] = place(output, step.shape), won = winners[output] === offset;
      return {
        label: `window ${row}, ${column}`, a: {name: `d.${k}`, index: output}, won,
        value: won ? valueOf(frame, {name: `d.${k}`, index: output}) : 0,
        note: won ? "won: it gets all" : "did not win: 0",
      };
    });
    return {
      sentence: terms.length ? "Unpooling: the mask sends the derivative of a window to the place " +
        "of its maximum, and zero to all others." : "No window covers this place: 0.",
      headings: ["derivative"], product: "passed on", terms,
      ...summed(frame, {name: `d.${k - 1}`, index}, terms),
    };
  },

  ReLU(frame, k, index) {
    const output = {name: `step.${k}`, index}, d = {name: `d.${k}`, index};
    const passes = valueOf(frame, output) > 0;
    return {
      sentence: passes ? "ReLU let this number pass: its derivative passes, too. The bias, added " +
        "here, changes no derivative." : "Stopped here: ReLU made this number 0, and a small " +
        "change of it changes nothing.",
      headings: ["derivative"], product: "passed on",
      terms: [{label: passes ? "after ReLU" : "after ReLU, stopped", a: d,
        value: passes ? valueOf(frame, d) : 0, note: `ReLU's result: ${number(valueOf(frame, output), frame)}`}],
      result: passes ? "the same number" : "zero", exact: passes ? valueOf(frame, d) : 0,
      shown: valueOf(frame, {name: `d.${k - 1}`, index}),
    };
  },

  flatten(frame, k, index) {
    const d = {name: `d.${k}`, index};
    return {
      sentence: `The row is cut into maps again: number ${index} goes back to its place. No arithmetic.`,
      headings: ["derivative"], terms: [{label: `number ${index}`, a: d}],
      result: "the same number", exact: valueOf(frame, d),
      shown: valueOf(frame, {name: `d.${k - 1}`, index}),
    };
  },

  scores(frame, k, index) {
    const terms = joinsOf(frame, k, {input: index}).map(({output, weight}) => ({
      label: `class ${output}`, a: {name: `d.${k}`, index: output}, b: {name: "W_dense", index: weight},
    }));
    return {
      sentence: "The derivative by each score times the weight that joins this number to it.",
      headings: ["derivative", "weight"], terms, ...summed(frame, {name: `d.${k - 1}`, index}, terms),
    };
  },

  // Through the loss and softmax together.
  softmax(frame, k, index) {
    const p = {name: `step.${k}`, index}, {smoothing} = frame.model;
    const classes = frame.steps[k].shape[0], target = targetOf(frame, index, classes);
    const rises = valueOf(frame, p) < target, does = `a step ${rises ? "raises" : "lowers"} this score.`;
    const why = index === frame.label ? "The true class: the derivative is negative until p " +
      `reaches its target, for a right answer, too. p is ${rises ? "below" : "above"} it: ${does}` :
      `Not the true class: what it has in probability beyond its target is taken from the true one; ${does}`;
    return {
      sentence: `Through −log and softmax together, the derivative by a score is p − y. ${why}`,
      headings: ["number"], terms: [{label: "p, its probability", a: p}],
      lines: [{label: `y, its target${smoothing ? ` (label smoothing ${smoothing})` : ""}`, value: target}],
      result: "p − y", exact: valueOf(frame, p) - target, shown: valueOf(frame, {name: `d.${k - 1}`, index}),
    };
  },
};

const targetOf = ({label, model: {smoothing}}, n, classes) =>
  (n === label ? 1 - smoothing : 0) + smoothing / classes;

// The gradient of a parameter, from the same joins with the weight fixed.
function gradient(frame, name, index) {
  const k = userOf(frame, name), shown = {name: "d." + name, index};
  const update = updateOf(frame, name, index);
  if (name === "B_dense") {
    const d = {name: `d.${k}`, index};
    return {
      sentence: "The bias is added to the score: its gradient is the score's derivative.",
      headings: ["derivative"], terms: [{label: `score of ${index}`, a: d}],
      result: "the same number", exact: valueOf(frame, d), shown: valueOf(frame, shown), update,
    };
  }
  const joins = joinsOf(frame, k, {weight: index});
  const bias = name.startsWith("biases."), shape = frame.steps[k].shape;
  const all = joins.map(({output, input}) => ({
    label: shape.length === 3 ? place(output, shape).slice(0, 2).join(", ") : `class ${output}`,
    a: bias ? {name: `d.${k - 1}`, index: output} : {name: `d.${k}`, index: output},
    ...(bias ? {} : {b: {name: `step.${k - 1}`, index: input}}),
  }));
  const terms = all.filter((term) => worth(frame, term) !== 0);
  const zeros = all.length - terms.length;
  return {
    sentence: (bias ? "The bias is added everywhere in its map: its gradient is the sum of the map's derivatives." :
      "This weight was multiplied at each place with a number: its gradient sums, over the places, " +
      "that number times the derivative of the product.") +
      (zeros ? ` ${zeros} of ${all.length} ${all.length === 1 ? "term is" : "terms are"} 0 and not listed.` : ""),
    headings: bias ? ["derivative"] : ["derivative", "number"], terms,
    ...summed(frame, shown, terms), update,
  };
}

// The step of SGD of one parameter, row by row, as `_update_parameters` of the class takes it.
function updateOf(frame, name, index) {
  const after = frame.arrays["after." + name];
  if (!after) return [];
  const {lr, momentum, weight_decay: decay} = frame.step;
  const weight = valueOf(frame, {name, index}), g = valueOf(frame, {name: "d." + name, index});
  const decays = decay && frame.arrays[name].shape.length > 1;
  const lines = [{label: "old", value: weight}, {label: "gradient", value: g}];
  if (decays) lines.push({label: `+ decay ${decay} x old`, value: decay * weight});
  const moved = -lr * (g + (decays ? decay * weight : 0));
  lines.push({label: `times −rate, −${lr}`, value: moved});
  let change = moved;
  if (momentum) {
    const v = valueOf(frame, {name: "velocity." + name, index});
    lines.push({label: `velocity: ${momentum} x ${number(v, frame)} + that`, value: momentum * v + moved});
    change += momentum * (momentum * v + moved);
    lines.push({label: `+ ${momentum} x velocity (Nesterov)`, value: momentum * (momentum * v + moved)});
  }
  const shown = after.data[index], exact = weight + change;
  if (shown !== exact) lines.push({label: "rounding", value: shown - exact});
  lines.push({label: "new", value: shown, result: true});
  return lines;
}

// A parameter by itself: what it is, and where it is used.
function parameter(frame, name, index) {
  const k = userOf(frame, name);
  const joins = name === "B_dense" ? [{output: index}] : joinsOf(frame, k, {weight: index});
  const places = joins.length === 1 ? "1 place, which is" : `${joins.length} places, which are`;
  return {
    sentence: `A learned number. It is used at ${places} marked. Change it, and see ` +
      "what becomes of the answer.",
    terms: [], shown: valueOf(frame, {name, index}), editable: {name, index},
    marks: joins.flatMap(({input, output}) => [{name: `step.${k}`, index: output},
      ...(input === undefined || name.startsWith("biases") ? [] : [{name: `step.${k - 1}`, index: input}])]),
  };
}

// ---------------------------------------------------------------- Sums

export const worth = (frame, {a, b, value}) => value ?? valueOf(frame, a) * (b ? valueOf(frame, b) : 1);

function summed(frame, ref, terms, lines = []) {
  const sum = terms.reduce((total, term) => total + worth(frame, term), 0);
  return {
    lines: lines.length ? [{label: "sum of the products", value: sum}, ...lines] : [], result: "sum",
    exact: lines.reduce((total, {value}) => total + value, sum), shown: valueOf(frame, ref),
  };
}

// What a number was made of: sentence, terms, lines and result.
export function explain(frame, cell) {
  const {name, index} = cell, step = /^(d|step)\.(\d+)$/.exec(name);
  let told;
  if (name === "loss") told = loss(frame);
  else if (!step && name.startsWith("d.")) told = gradient(frame, sourceOf(name), index);
  else if (!step) told = parameter(frame, name, index);
  else if (step[1] === "step") told = forward[frame.steps[Number(step[2])].kind](frame, Number(step[2]), index);
  else told = backward[frame.steps[Number(step[2]) + 1].kind](frame, Number(step[2]) + 1, index);
  return {cell, title: nameOf(frame, cell), lines: [], after: [], update: [], ...told};
}

// The numbers that a number was made of, by array: what is highlighted.
export function sourcesOf({terms, marks = [], lines}) {
  const sources = new Map();
  const refs = [...terms.flatMap(({a, b}) => b ? [a, b] : [a]), ...marks,
    ...lines.filter(({ref}) => ref).map(({ref}) => ref)];
  for (const {name, index} of refs) {
    if (!sources.has(name)) sources.set(name, new Set());
    sources.get(name).add(index);
  }
  return sources;
}

// The source with the most weight, to follow; the winner, where one won.
export function mainSource(frame, {terms}) {
  const size = (term) => term.won ? Infinity : Math.abs(worth(frame, term));
  const first = terms.reduce((best, term) => !best || size(term) > size(best) ? term : best, null);
  return first?.a || null;
}

// ---------------------------------------------------------------- Numbers as text

// The shortest decimal that is this number and no other of the network's precision.
export function number(value, frame) {
  if (!Number.isFinite(value)) return String(value);
  if (frame.model.dtype === "float64" || Math.fround(value) !== value) return rounded(value, frame.model.dtype === "float64" ? 15 : 9);
  for (let digits = 1; digits < 10; digits++) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return tidy(Number(text));
  }
  return tidy(value);
}

const rounded = (value, digits) => tidy(Number(value.toPrecision(digits)));
const tidy = (value) => String(value).replace("-", "−").replace("e−", "e-");

// ---------------------------------------------------------------- As a table

// Rows of a table: groups with subtotals and, of the opened ones, their terms. `all` opens
// every group, and leaves no term out.
export function rowsOf(frame, told, opened = null, all = false) {
  const groups = new Map();
  for (const term of told.terms) {
    const group = term.group || "";
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(term);
  }
  const total = (terms) => terms.reduce((sum, term) => sum + worth(frame, term), 0);
  const sizes = new Map([...groups].map(([group, terms]) => [group, Math.abs(total(terms))]));
  const widest = [...groups.keys()].reduce((a, b) => sizes.get(b) > sizes.get(a) ? b : a, [...groups.keys()][0]);
  const rows = [];
  for (const [group, terms] of groups) {
    const open = all || groups.size === 1 || (opened === null ? group === widest : group === opened);
    if (groups.size > 1) rows.push({kind: "group", label: group, count: terms.length, value: total(terms), open});
    if (!open) continue;
    let listed = terms, rest = [];
    if (!all && terms.length > LISTED) {
      const bySize = [...terms].sort((a, b) => Math.abs(worth(frame, b)) - Math.abs(worth(frame, a)));
      [listed, rest] = [bySize.slice(0, LARGEST), bySize.slice(LARGEST)];
    }
    rows.push(...listed.map((term) => termRow(frame, term)));
    if (rest.length) rows.push({kind: "rest", label: `the other ${rest.length}`, value: total(rest)});
  }
  return rows;
}

function termRow(frame, term) {
  return {
    kind: "term", label: term.label, a: valueOf(frame, term.a), b: term.b && valueOf(frame, term.b),
    value: worth(frame, term), note: term.note || "", marked: term.won || term.own || false,
  };
}

// What stands below the terms: further lines, rounding and the result.
export function linesOf(told) {
  const lines = [...told.lines];
  const rounding = told.exact === undefined ? 0 : told.shown - told.exact;
  if (rounding) {
    lines.push({label: told.result, value: told.exact});
    lines.push({label: "rounding", value: rounding});
  }
  lines.push({label: rounding || !told.result ? "the network's number" : told.result, value: told.shown, result: true});
  return lines;
}

// As lines of CSV, or of text, with every term; with `hidden`, only what is asked for is "?".
export function asCSV(frame, told, hidden = false) {
  const quote = (text) => `"${String(text ?? "").replaceAll('"', '""')}"`, show = (value) => hidden ? "?" : value;
  const [first = "", second = ""] = told.headings || [];
  const rows = [[told.title], ["what", first, second, told.product || "product"]];
  for (const row of rowsOf(frame, told, null, true))
    rows.push(row.kind === "term" ? [row.label, row.a, row.b, show(row.value)] : [row.label, "", "", show(row.value)]);
  for (const {label, value} of belowOf(told)) rows.push([label, "", "", show(value)]);
  return rows.map((row) => row.map(quote).join(",") + "\r\n").join("");
}

export function asText(frame, told, hidden = false) {
  const write = (value) => number(value, frame), show = (value) => hidden ? "?" : write(value);
  const lines = [told.title, told.sentence, ""];
  for (const row of rowsOf(frame, told, null, true)) {
    if (row.kind !== "term") lines.push(`${row.label}: ${show(row.value)}`);
    else if (row.b !== undefined) lines.push(`  ${row.label}: ${write(row.a)} x ${write(row.b)} = ${show(row.value)}`);
    else lines.push(`  ${row.label}: ${write(row.a)}${told.product ? ` → ${show(row.value)}` : ""} ${row.note}`.trimEnd());
  }
  for (const {label, value} of belowOf(told)) lines.push(`${label}: ${show(value)}`);
  return lines.join("\n") + "\n";
}

const belowOf = (told) => [...linesOf(told), ...told.after, ...told.update];
