/** Every differentiable op's gradients against central differences, in float64 on the reference backend. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Arena } from "../src/tensor/arena.ts";
import { type Linear, Ops } from "../src/tensor/ops.ts";
import { uniform } from "../src/tensor/random.ts";
import { Tape } from "../src/tensor/tape.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { ReferenceBackend } from "./support/reference.ts";

const STEP = 1e-5; // its square and 1e-16 / STEP are what the differences are off by
const TOLERANCE = 1e-6;
/** So many elements of each input are tried at most, spread over it. */
const PROBES = 24;
/** More than half of what a chunk of logits is laid out for: 64 rows fill one. */
const LARGE_V = 25_301;

/** What an op is tried on: named float inputs and what it makes of them. */
interface Trial {
  /** Shapes of the inputs that are differentiated. */
  inputs: Record<string, number[]>;
  /** The op under test; `u32` puts indices where it can use them. */
  run(
    ops: Ops,
    inputs: Record<string, Tensor>,
    u32: (...content: number[]) => Tensor,
  ): Tensor;
  /** The op's own weight of its loss; without it the output is weighed by random numbers. */
  gradientScale?: number;
  /** Instead of {@linkcode PROBES}, where a trial takes long. */
  probes?: number;
}

function random(shape: readonly number[], which: number): Float64Array {
  const length = shape.reduce((product, extent) => product * extent, 1);
  return Float64Array.from({ length }, (_, i) => 2 * uniform(i, [which, 99]) - 1);
}

/** Compares the gradients of all inputs, and that every temporary was let go. */
function check(trial: Trial): void {
  using backend = new ReferenceBackend();
  const arena = new Arena(backend);
  const names = Object.keys(trial.inputs);
  const inputs = Object.fromEntries(names.map((name, i) => {
    const shape = trial.inputs[name];
    const tensor = backend.upload(random(shape, i), shape);
    tensor.requiresGradient = true;
    return [name, tensor];
  }));
  const forward = (tape: Tape | null) => {
    let place = 0;
    return trial.run(
      new Ops(arena, tape, () => [5, place++]),
      inputs,
      (...content) => arena.upload(Uint32Array.from(content)),
    );
  };
  const weights = (out: Tensor) => trial.gradientScale ?? random(out.shape, 77);
  const value = () =>
    arena.scope(() => {
      const out = forward(null);
      const w = weights(out);
      return backend.read64(out).reduce((sum, x, i) => sum + x * (typeof w === "number" ? w : w[i]), 0);
    });

  // Gradients are added to what is there.
  const bound = names.map((name) => backend.upload(random(trial.inputs[name], 55), trial.inputs[name]));
  arena.scope(() => {
    const tape = new Tape(arena);
    names.forEach((name, i) => tape.bind(inputs[name], bound[i]));
    const out = forward(tape);
    const w = weights(out);
    if (typeof w === "number") return tape.backward(out);
    const seed = arena.temporary(out.shape);
    backend.write(seed, w);
    tape.backward(out, seed);
  });
  assertEquals(arena.size, 0, "temporaries were left behind");

  names.forEach((name, n) => {
    const before = random(trial.inputs[name], 55);
    const gradient = backend.read64(bound[n]).map((x, i) => x - before[i]);
    const size = Math.max(...gradient.map(Math.abs));
    assert(size > 1e-3, `no gradient of ${name}`);
    const content = backend.read64(inputs[name]);
    const every = Math.ceil(content.length / (trial.probes ?? PROBES));
    for (let i = 0; i < content.length; i += every) {
      const at = (x: number) => {
        backend.write(inputs[name], content.with(i, x));
        return value();
      };
      const difference = (at(content[i] + STEP) - at(content[i] - STEP)) / (2 * STEP);
      backend.write(inputs[name], content);
      assertAlmostEquals(gradient[i], difference, TOLERANCE * size, `d ${name}[${i}]`);
    }
  });
  assertEquals(arena.size, 0, "temporaries were left behind");
}

const lora = (A: Tensor, B: Tensor, dropout = 0) => ({ A, B, scaling: 0.6, dropout });

const TRIALS: Record<string, Trial> = {
  "an embedding whose tokens repeat": {
    inputs: { wte: [5, 3], wpe: [4, 3] },
    run: (ops, { wte, wpe }, u32) => ops.embedding(wte, wpe, u32(4, 0, 4, 4, 2), u32(0, 1, 2, 0, 1)),
  },
  "a layer normalisation": {
    inputs: { x: [5, 7], weight: [7], bias: [7] },
    run: (ops, { x, weight, bias }) => ops.layerNorm(x, { weight, bias }, 1e-5),
  },
  "a linear layer": {
    inputs: { x: [5, 3], weight: [3, 4], bias: [4] },
    run: (ops, { x, weight, bias }) => ops.linear(x, { weight, bias }),
  },
  "a linear layer without a bias beside a residual": {
    inputs: { x: [5, 3], weight: [3, 4], residual: [5, 4] },
    run: (ops, { x, weight, residual }) => ops.linear(x, { weight }, residual),
  },
  "a linear layer beside its own input": {
    inputs: { x: [5, 4], weight: [4, 4], bias: [4] },
    run: (ops, { x, weight, bias }) => ops.linear(x, { weight, bias }, x),
  },
  "a linear layer with an adapter beside a residual": {
    inputs: { x: [5, 3], weight: [3, 4], bias: [4], A: [2, 3], B: [4, 2], residual: [5, 4] },
    run: (ops, { x, weight, bias, A, B, residual }) =>
      ops.linear(x, { weight, bias, lora: lora(A, B) }, residual),
  },
  "a linear layer with an adapter with dropout": {
    inputs: { x: [5, 3], weight: [3, 4], bias: [4], A: [2, 3], B: [4, 2] },
    run: (ops, { x, weight, bias, A, B }) => ops.linear(x, { weight, bias, lora: lora(A, B, 0.4) }),
  },
  "two layers with one adapter's matrices, each with a dropout mask of its own": {
    inputs: { x: [5, 3], weight: [3, 3], A: [2, 3], B: [3, 2] },
    run(ops, { x, weight, A, B }) {
      const layer: Linear = { weight, lora: lora(A, B, 0.4) };
      return ops.linear(ops.linear(x, layer), layer);
    },
  },
  "GELU": {
    inputs: { x: [40] },
    run: (ops, { x }) => ops.gelu(x),
  },
  "attention within sequences of unequal lengths": {
    inputs: { qkv: [7, 24] },
    run: (ops, { qkv }, u32) =>
      ops.attention(qkv, { starts: u32(0, 0, 0, 3, 4, 4, 4), ends: u32(3, 3, 3, 4, 7, 7, 7) }, 2, 1.5),
  },
  "selected rows": {
    inputs: { x: [6, 3] },
    run: (ops, { x }, u32) => ops.gather(x, u32(5, 0, 3)),
  },
  "cross-entropy": {
    inputs: { hidden: [5, 4], wte: [7, 4] },
    gradientScale: 0.3,
    run: (ops, { hidden, wte }, u32) => ops.crossEntropy(hidden, wte, u32(6, 0, 3, 3, 1), 0.3),
  },
  "cross-entropy in chunks of rows": {
    inputs: { hidden: [67, 2], wte: [LARGE_V, 2] },
    gradientScale: 1,
    probes: 6,
    run: (ops, { hidden, wte }, u32) =>
      ops.crossEntropy(hidden, wte, u32(...Array.from({ length: 67 }, (_, n) => n * 443 % LARGE_V)), 1),
  },
  "a value used three times": {
    inputs: { x: [5, 4], weight: [4, 4], bias: [4] },
    run(ops, { x, weight, bias }) {
      const h = ops.gelu(x);
      return ops.linear(ops.linear(h, { weight, bias }, h), { weight }, h);
    },
  },
};

for (const [what, trial] of Object.entries(TRIALS)) {
  Deno.test(`the gradients of ${what} are its central differences`, () => check(trial));
}

/** Launches of a backward pass through frozen layers, the last of which has an adapter. */
function backwardDispatches(layersBelow: number): number {
  using backend = new ReferenceBackend();
  using arena = new Arena(backend);
  const weight = backend.pack(Float32Array.from(random([4, 4], 1)), 4, 4, "f32");
  const [A, B] = [[2, 4], [4, 2]].map((shape, i) => backend.upload(random(shape, i), shape));
  A.requiresGradient = B.requiresGradient = true;
  const tape = new Tape(arena);
  const ops = new Ops(arena, tape);
  return arena.scope(() => {
    let x = arena.upload(Float32Array.from(random([3, 4], 9)), [3, 4]);
    for (let i = 0; i < layersBelow; i++) x = ops.gelu(ops.linear(x, { weight }));
    const out = ops.linear(x, { weight, lora: lora(A, B) });
    const before = backend.stats().dispatches;
    tape.backward(out, arena.upload(Float32Array.from(random([3, 4], 3)), [3, 4]));
    assert(tape.gradient(A) && tape.gradient(B), "the adapter has gradients");
    assertEquals(tape.gradient(x), undefined);
    assertEquals(tape.gradient(weight), undefined);
    return backend.stats().dispatches - before;
  });
}

Deno.test("nothing runs backward below the lowest adapter, and a frozen weight costs nothing", () => {
  assertEquals(backwardDispatches(5), backwardDispatches(0));
  assertEquals(backwardDispatches(0), 3); // dB, dH, dA
});
