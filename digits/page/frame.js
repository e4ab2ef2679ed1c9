// A frame: all numbers of one image in one network, as the class computed them.
// A header in JSON is followed by arrays; nothing is copied or computed here.

const kinds = {float32: Float32Array, float64: Float64Array, uint16: Uint16Array};

// The frame in a server's answer. Parameters that have not changed come from the one before.
export function readFrame(buffer, before = null) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  for (const [name, {dtype, shape, offset}] of Object.entries(header.arrays)) {
    const count = shape.reduce((product, side) => product * side, 1);
    arrays[name] = {data: new kinds[dtype](buffer, 4 + length + offset, count), shape};
  }
  if (before?.version === header.version)
    for (const name of before.parameters) arrays[name] ??= before.arrays[name];
  const parameters = Object.keys(arrays).filter((name) => /^(kernels|biases|[WB]_dense)/.test(name));
  return {...header, arrays, parameters};
}

// The number that a reference {name, index} names.
export function valueOf(frame, {name, index}) {
  if (name === "loss") return frame.loss;
  return frame.arrays[name].data[index];
}

// Whether a frame holds such a number.
export function holds(frame, {name, index}) {
  if (name === "loss") return index === 0;
  const array = frame.arrays[name];
  return Boolean(array) && Number.isInteger(index) && index >= 0 && index < array.data.length;
}

// Row, column and channel of a flat index into (H, W, C), and back.
export function place(index, [, width, channels]) {
  const pixel = Math.floor(index / channels);
  return [Math.floor(pixel / width), pixel % width, index % channels];
}
export function flat([row, column, channel], [, width, channels]) {
  return (row * width + column) * channels + channel;
}

// Filter, channel, row and column of a flat index into (F, C, K_h, K_w), and back.
export function kernelPlace(index, [, channels, height, width]) {
  const row = Math.floor(index / width), channel = Math.floor(row / height);
  return [Math.floor(channel / channels), channel % channels, row % height, index % width];
}
export function kernelFlat([filter, channel, row, column], [, channels, height, width]) {
  return ((filter * channels + channel) * height + row) * width + column;
}
