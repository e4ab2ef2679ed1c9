// Which numbers each kind of step joins: the one table that sums, highlights, lines and the
// way back are read from.
//
// A join is {output, input, weight}, flat indices into a step's result, into what it takes,
// and into its kernel. Any of the three may be fixed: a fixed output lists what it was made
// of, a fixed input all that was made of it (the derivative by it), a fixed weight all that
// it was multiplied with (the gradient of a kernel).

import {flat, kernelFlat, kernelPlace, place} from "./frame.js";

// Along one axis, the input's place is stride * output + offset - padding.
function along({outputs, offsets, inputs, stride, padding}, fixed) {
  const joins = [];
  for (let output = 0; output < outputs; output++) {
    if (fixed.output !== undefined && fixed.output !== output) continue;
    for (let offset = 0; offset < offsets; offset++) {
      const input = stride * output + offset - padding;
      if (input < 0 || input >= inputs) continue;  // In the padding, which is zero.
      if (fixed.offset !== undefined && fixed.offset !== offset) continue;
      if (fixed.input !== undefined && fixed.input !== input) continue;
      joins.push({output, offset, input});
    }
  }
  return joins;
}

const range = (count, only) => only === undefined ? Array.from({length: count}, (_, n) => n) : [only];

// The windows of a step on maps, as [row, column] joins.
function windows(step, shape, fixed) {
  return [0, 1].map((axis) => along({
    outputs: step.shape[axis], offsets: step.window[axis], inputs: shape[axis],
    stride: step.stride, padding: step.padding || 0,
  }, Object.fromEntries(Object.entries(fixed).map(([key, sides]) => [key, sides[axis]]))));
}

const relations = {
  convolution(step, shape, {output, input, weight}) {
    const kernel = [step.shape[2], shape[2], ...step.window], fixed = {};
    let filter, channel;
    if (output !== undefined) [fixed.output, filter] = split(place(output, step.shape));
    if (input !== undefined) [fixed.input, channel] = split(place(input, shape));
    if (weight !== undefined) {
      const [f, c, ...offset] = kernelPlace(weight, kernel);
      [filter, channel, fixed.offset] = [f, c, offset];
    }
    const [rows, columns] = windows(step, shape, fixed), joins = [];
    for (const f of range(kernel[0], filter))
      for (const c of range(kernel[1], channel))
        for (const row of rows)
          for (const column of columns)
            joins.push({
              output: flat([row.output, column.output, f], step.shape),
              input: flat([row.input, column.input, c], shape),
              weight: kernelFlat([f, c, row.offset, column.offset], kernel),
            });
    return joins;
  },

  pooling(step, shape, {output, input}) {
    const fixed = {};
    let channel;
    if (output !== undefined) [fixed.output, channel] = split(place(output, step.shape));
    if (input !== undefined) [fixed.input, channel] = split(place(input, shape));
    const [rows, columns] = windows(step, shape, fixed);
    return rows.flatMap((row) => columns.map((column) => ({
      output: flat([row.output, column.output, channel], step.shape),
      input: flat([row.input, column.input, channel], shape),
      offset: row.offset * step.window[1] + column.offset,
    })));
  },

  // The weight is the bias, one a map.
  ReLU(step, shape, {output, input, weight}) {
    if (weight === undefined) {
      const same = output ?? input;
      return [{output: same, input: same, weight: same % shape[2]}];
    }
    const places = range(shape[0] * shape[1]).map((pixel) => pixel * shape[2] + weight);
    return places.map((same) => ({output: same, input: same, weight}));
  },

  flatten(step, shape, {output, input}) {
    const same = output ?? input;
    return [{output: same, input: same}];
  },

  scores(step, shape, {output, input, weight}) {
    const [features, classes] = [shape[0], step.shape[0]];
    if (weight !== undefined) [input, output] = [Math.floor(weight / classes), weight % classes];
    const joins = [];
    for (const d of range(features, input))
      for (const n of range(classes, output))
        joins.push({output: n, input: d, weight: d * classes + n});
    return joins;
  },

  softmax(step, shape, {output, input}) {
    return range(shape[0], input).flatMap((from) =>
      range(step.shape[0], output).map((to) => ({output: to, input: from})));
  },
};

const split = ([row, column, channel]) => [[row, column], channel];

// The joins of step `k` of a frame with what it takes, with one of the three fixed.
export function joinsOf(frame, k, fixed) {
  return relations[frame.steps[k].kind](frame.steps[k], frame.steps[k - 1].shape, fixed);
}
