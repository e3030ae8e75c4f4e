// @ts-check
// Matrix products in single precision: a WebAssembly kernel with SIMD that is assembled here, and the same in plain JavaScript.

/**
 * `out = leaky(bias + weights · rows)`, or with `add` `out = leaky(out + bias + weights · rows)`. All places are addresses in bytes:
 * `weights` holds `[m / 4, k, 4]` numbers, `offsets` `k` integers, by which a row of the input lies after `input`; `stride` lies
 * between two rows of the output. `m` is a multiple of 4, `n`, the columns, of 8.
 * @typedef {(weights: number, offsets: number, input: number, bias: number, out: number, stride: number, m: number, k: number, n: number, slope: number, add: number) => void} Product
 */
/** Memory that grows, and the product over it. @typedef {{name: string, floats: () => Float32Array, integers: () => Int32Array, grow: (bytes: number) => void, product: Product}} Arithmetic */

const PAGE = 65536;  // bytes of WebAssembly's unit of memory
const I32 = 0x7f, F32 = 0x7d, V128 = 0x7b;

/** An unsigned number in LEB128. @param {number} value @returns {number[]} */
const leb = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...leb(value >>> 7)]);
/** A signed number in LEB128. @param {number} value @returns {number[]} */
const signed = (value) => (value >= -64 && value < 64 ? [value & 127] : [(value & 127) | 128, ...signed(value >> 7)]);
/** A list of encoded items, after their count. @param {number[][]} items */
const list = (items) => [...leb(items.length), ...items.flat()];
/** @param {number} id @param {number[]} content */
const section = (id, content) => [id, ...leb(content.length), ...content];
/** @param {string} text */
const named = (text) => list([...text].map((letter) => [letter.charCodeAt(0)]));

const get = (/** @type {number} */ local) => [0x20, ...leb(local)], set = (/** @type {number} */ local) => [0x21, ...leb(local)];
const number = (/** @type {number} */ value) => [0x41, ...signed(value)], simd = (/** @type {number} */ code) => [0xfd, ...leb(code)];
const plus = [0x6a], times = [0x6c], less = [0x49], loadInteger = [0x28, 2, 0];
const loadVector = (/** @type {number} */ offset) => [...simd(0x00), 2, ...leb(offset)], loadSplat = (/** @type {number} */ offset) => [...simd(0x09), 2, ...leb(offset)];
const store = (/** @type {number} */ offset) => [...simd(0x0b), 2, ...leb(offset)];
const splat = simd(0x13), addVectors = simd(0xe4), multiply = simd(0xe6), maximum = simd(0xe9);
const raise = (/** @type {number} */ local, /** @type {number[]} */ amount) => [...get(local), ...amount, ...plus, ...set(local)];
/** `body` again and again while `local` is less than `end`. @param {number[]} body @param {number} local @param {number} end */
const loop = (body, local, end) => [0x03, 0x40, ...body, ...get(local), ...get(end), ...less, 0x0d, 0, 0x0b];

/** The bytes of a module with the memory `e.m` and the function `p`: 4 rows by 8 columns at a time, held in 8 registers. */
export function assembled() {
  const [weights, offsets, input, bias, out, stride, m, k, n, slope, add] = Array.from({ length: 11 }, (_, at) => at);
  const [column, end, row, rows, w, at, last, from, to] = Array.from({ length: 9 }, (_, i) => 11 + i);
  const sums = Array.from({ length: 8 }, (_, i) => 20 + i), [left, right, factor] = [28, 29, 30];
  const begin = [0, 1, 2, 3].flatMap((r) => [...get(bias), ...get(row), ...plus, ...loadSplat(4 * r), ...set(sums[2 * r]), ...get(sums[2 * r]), ...set(sums[2 * r + 1])]);
  const step = [
    ...get(at), ...loadInteger, ...get(from), ...plus, ...set(to), ...get(to), ...loadVector(0), ...set(left), ...get(to), ...loadVector(16), ...set(right),
    ...[0, 1, 2, 3].flatMap((r) => [
      ...get(w), ...loadSplat(4 * r), ...set(factor),
      ...[left, right].flatMap((part, i) => [...get(factor), ...get(part), ...multiply, ...get(sums[2 * r + i]), ...addVectors, ...set(sums[2 * r + i])]),
    ]),
    ...raise(w, number(16)), ...raise(at, number(4)),
  ];
  const finish = [0, 1, 2, 3].flatMap((r) => [
    ...[0, 1].flatMap((i) => {
      const sum = sums[2 * r + i];
      return [
        ...get(add), 0x04, 0x40, ...get(sum), ...get(to), ...loadVector(16 * i), ...addVectors, ...set(sum), 0x0b,
        ...get(to), ...get(sum), ...get(sum), ...get(slope), ...splat, ...multiply, ...maximum, ...store(16 * i),
      ];
    }),
    ...raise(to, get(stride)),
  ]);
  const fourRows = [
    ...begin, ...get(offsets), ...set(at), ...loop(step, at, last),
    ...get(out), ...get(column), ...plus, ...get(row), ...number(4), 0x6d, ...get(stride), ...times, ...plus, ...set(to), ...finish, ...raise(row, number(16)),
  ];
  const eightColumns = [
    ...get(input), ...get(column), ...plus, ...set(from), ...get(weights), ...set(w), ...number(0), ...set(row),
    ...loop(fourRows, row, rows), ...raise(column, number(32)),
  ];
  const body = [
    ...get(n), ...number(4), ...times, ...set(end), ...get(m), ...number(4), ...times, ...set(rows),
    ...get(offsets), ...get(k), ...number(4), ...times, ...plus, ...set(last), ...loop(eightColumns, column, end), 0x0b,
  ];
  const locals = list([[9, I32], [11, V128]]), code = [...locals, ...body];
  return new Uint8Array([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, list([[0x60, ...list([...Array(9).fill([I32]), [F32], [I32]]), 0]])),
    ...section(2, list([[...named("e"), ...named("m"), 2, 0, 1]])),
    ...section(3, list([[0]])),
    ...section(7, list([[...named("p"), 0, 0]])),
    ...section(10, list([[...leb(code.length), ...code]])),
  ]);
}

/** In plain JavaScript, for browsers that forbid WebAssembly. @returns {Arithmetic} */
export function plain() {
  let memory = new ArrayBuffer(PAGE), numbers = new Float32Array(memory), integers = new Int32Array(memory);
  return {
    name: "JavaScript",
    floats: () => numbers,
    integers: () => integers,
    grow(bytes) {
      if (bytes <= memory.byteLength) return;
      const former = new Uint8Array(memory);
      memory = new ArrayBuffer(Math.max(bytes, 2 * memory.byteLength));
      new Uint8Array(memory).set(former);
      [numbers, integers] = [new Float32Array(memory), new Int32Array(memory)];
    },
    product(weights, offsets, input, bias, out, stride, m, k, n, slope, add) {
      const sum = new Float32Array(n);
      for (let row = 0; row < m; row++) {
        const target = (out + row * stride) / 4;
        if (add) for (let j = 0; j < n; j++) sum[j] = numbers[target + j] + numbers[bias / 4 + row];
        else sum.fill(numbers[bias / 4 + row]);
        for (let i = 0; i < k; i++) {
          const factor = numbers[weights / 4 + (row >> 2) * 4 * k + 4 * i + (row & 3)], from = (input + integers[offsets / 4 + i]) / 4;
          for (let j = 0; j < n; j++) sum[j] += factor * numbers[from + j];
        }
        for (let j = 0; j < n; j++) numbers[target + j] = Math.max(sum[j], slope * sum[j]);
      }
    },
  };
}

/** In WebAssembly where the browser has it with SIMD. @returns {Arithmetic} */
export function arithmetic() {
  try {
    const memory = new WebAssembly.Memory({ initial: 1 });
    const { p } = new WebAssembly.Instance(new WebAssembly.Module(assembled()), { e: { m: memory } }).exports;
    let numbers = new Float32Array(memory.buffer), integers = new Int32Array(memory.buffer);
    return {
      name: "WebAssembly",
      floats: () => numbers,
      integers: () => integers,
      grow(bytes) {
        const missing = Math.ceil((bytes - memory.buffer.byteLength) / PAGE);
        if (missing <= 0) return;
        memory.grow(Math.max(missing, memory.buffer.byteLength / PAGE));  // doubles, so that it seldom grows
        [numbers, integers] = [new Float32Array(memory.buffer), new Int32Array(memory.buffer)];
      },
      product: /** @type {Product} */ (p),
    };
  } catch {
    return plain();
  }
}
