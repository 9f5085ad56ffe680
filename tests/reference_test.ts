/** The float64 reference, which the other backends are held to, against PyTorch's float64 operations and its autograd. */
import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import type { Tensor } from "../src/tensor/tensor.ts";
import { ReferenceBackend } from "./support/reference.ts";

Deno.test("the reference refuses freed memory, and lengths that do not fit", () => {
  using backend = new ReferenceBackend();
  const x = backend.upload(Float64Array.of(1, 2, 3));
  assertThrows(() => backend.write(x, Float64Array.of(1)), RangeError);
  assertThrows(() => backend.read64(x.slice(1, [3])), RangeError, "exceeds");
  backend.free(x);
  assertThrows(() => backend.add({ a: x, b: x, out: x }), Error, "was freed");
  assertThrows(() => backend.free(x), Error, "freed twice");
});

Deno.test("the reference hands out memory full of NaN", () => {
  using backend = new ReferenceBackend();
  assertEquals([...backend.read64(backend.allocate([2]))], [NaN, NaN]);
});

Deno.test("the reference's stored matrices: a scale for 32 down the rows or along the columns, two nibbles a byte", async () => {
  using backend = new ReferenceBackend();
  // 2 x 3, steps of 1 and 2 by rows, which axis 1 keeps and axis 0 has to share.
  const data = Float32Array.of(0, 7, 15, 1, 31, 3);
  const rows = await backend.unpackStored(backend.pack(data, 2, 3, "q4", 1));
  assertEquals([...rows.codes], [0x70, 0x0f, 0x1f]); // 0 7 15 | 0 15 1
  assertEquals([rows.scales, rows.minima], [Float32Array.of(1, 2), Float32Array.of(0, 1)]);
  assertEquals(await backend.unpack(backend.packStored(rows)), data);
  const columns = await backend.unpackStored(backend.pack(data, 2, 3, "q8", 0));
  assertEquals([...new Int8Array(columns.codes.buffer)], [0, 29, 127, 127, 127, 25]);
  assertEquals(columns.scales, Float32Array.of(1 / 127, 31 / 127, 15 / 127));
});

// The kernels' mathematics.

interface Stored {
  shape: number[];
  data: number[];
}
interface AdamWStep {
  gradients: number[];
  norm: number;
  parameters: number[];
}
type Operation = {
  inputs: Record<string, Stored | number>;
  outputs: Record<string, Stored> & { steps?: AdamWStep[] };
};
const operations: Record<string, Operation> = JSON.parse(
  await Deno.readTextFile(new URL("fixtures/parity/operations.json", import.meta.url)),
);

/** One operation's stored inputs in a backend's memory, and what must come out. */
class Experiment {
  readonly backend = new ReferenceBackend();
  readonly #operation: Operation;

  constructor(name: string) {
    this.#operation = operations[name];
  }

  tensor(name: string): Tensor {
    const { shape, data } = this.#operation.inputs[name] as Stored;
    return this.backend.upload(Float64Array.from(data), shape);
  }

  number(name: string): number {
    return this.#operation.inputs[name] as number;
  }

  /** NaN in the shape of an input or output. */
  empty(name: string): Tensor {
    return this.backend.allocate((this.#operation.outputs[name] ?? this.#operation.inputs[name]).shape);
  }

  /** Zeros in the shape of an output, for what is always added to. */
  zeros(name: string): Tensor {
    const out = this.empty(name);
    this.backend.fill({ out, value: 0 });
    return out;
  }

  expect(name: string, tensor: Tensor): void {
    close(this.backend.read64(tensor), this.#operation.outputs[name].data, name);
  }
}

function close(actual: ArrayLike<number>, expected: number[], name: string): void {
  assertEquals(actual.length, expected.length);
  expected.forEach((x, i) => assertAlmostEquals(actual[i], x, 1e-12 * (1 + Math.abs(x)), `${name}[${i}]`));
}

Deno.test("the reference's layer normalisation and its gradients are PyTorch's", () => {
  const e = new Experiment("layerNorm");
  const [x, weight, bias, dOut] = ["x", "weight", "bias", "dOut"].map((name) => e.tensor(name));
  const [mean, rstd] = [0, 1].map(() => e.backend.allocate([x.shape[0]]));
  const out = e.empty("out");
  e.backend.layerNorm({ x, weight, bias, out, mean, rstd, epsilon: e.number("epsilon") });
  e.expect("out", out);
  const [dX, dWeight, dBias] = [e.empty("d.x"), e.zeros("d.weight"), e.zeros("d.bias")];
  e.backend.layerNormBackward({ x, weight, mean, rstd, dOut, dX, dWeight, dBias });
  e.expect("d.x", dX);
  e.expect("d.weight", dWeight);
  e.expect("d.bias", dBias);
});

Deno.test("the reference's GELU and its gradient are PyTorch's", () => {
  const e = new Experiment("gelu");
  const [x, out, dX] = [e.tensor("x"), e.empty("out"), e.empty("d.x")];
  e.backend.gelu({ x, out });
  e.expect("out", out);
  e.backend.geluBackward({ x, dOut: e.tensor("dOut"), dX });
  e.expect("d.x", dX);
});

Deno.test("the reference's matrix product with its epilogue is PyTorch's", () => {
  const e = new Experiment("matmul");
  const [a, b, bias, residual] = ["a", "b", "bias", "residual"].map((name) => e.tensor(name));
  const out = e.empty("out");
  e.backend.matmul({ a, b, bias, residual, alpha: e.number("alpha"), activation: "gelu", out });
  e.expect("out", out);
});

Deno.test("the reference's embeddings and their gradients are PyTorch's", () => {
  const e = new Experiment("embedding");
  const [wte, wpe, tokens, positions] = ["wte", "wpe", "tokens", "positions"].map((name) => e.tensor(name));
  const out = e.empty("out");
  e.backend.embedding({ wte, wpe, tokens, positions, out });
  e.expect("out", out);
  const [dWte, dWpe] = [e.zeros("d.wte"), e.zeros("d.wpe")];
  e.backend.embeddingBackward({ tokens, positions, dOut: e.tensor("dOut"), dWte, dWpe });
  e.expect("d.wte", dWte);
  e.expect("d.wpe", dWpe);
});

Deno.test("the reference's attention within sequences and its gradient are PyTorch's", () => {
  const e = new Experiment("attention");
  const [qkv, starts, ends, dOut] = ["qkv", "starts", "ends", "dOut"].map((name) => e.tensor(name));
  const [heads, scale] = [e.number("heads"), e.number("scale")];
  const [out, logSumExp, dQkv] = [e.empty("out"), e.empty("logSumExp"), e.empty("d.qkv")];
  e.backend.attention({ qkv, starts, out, logSumExp, heads, scale });
  e.expect("out", out);
  e.expect("logSumExp", logSumExp);
  e.backend.attentionBackward({ qkv, starts, ends, out, logSumExp, dOut, dQkv, heads, scale });
  e.expect("d.qkv", dQkv);
});

Deno.test("the reference's attention over a cache is its attention within sequences", () => {
  const e = new Experiment("attention");
  const [qkv, starts] = [e.tensor("qkv"), e.tensor("starts")];
  const [T, C3] = qkv.shape;
  const firsts = [...e.backend.read64(starts)];
  const slots = firsts.map((first) => [...new Set(firsts)].indexOf(first));
  const [keys, values] = [0, 1].map(() => e.backend.allocate([3, T, C3 / 3]));
  // Each row in a call of its own: what it sees comes from the cache.
  const outs = firsts.flatMap((first, t) => {
    const out = e.backend.allocate([1, C3 / 3]);
    e.backend.cachedAttention({
      qkv: qkv.slice(t * C3, [1, C3]),
      keys,
      values,
      slots: e.backend.upload(Uint32Array.of(slots[t])),
      positions: e.backend.upload(Uint32Array.of(t - first)),
      out,
      heads: e.number("heads"),
      scale: e.number("scale"),
    });
    return [...e.backend.read64(out)];
  });
  e.expect("out", e.backend.upload(Float64Array.from(outs)));
});

Deno.test("the reference's cross-entropy and its gradient are PyTorch's", () => {
  const e = new Experiment("crossEntropy");
  const [logits, targets, loss] = [e.tensor("logits"), e.tensor("targets"), e.empty("loss")];
  e.backend.crossEntropy({ logits, targets, loss, gradientScale: e.number("gradientScale") });
  e.expect("loss", loss);
  e.expect("gradient", logits);
});

Deno.test("the reference's clipping and AdamW are PyTorch's", () => {
  const e = new Experiment("adamw");
  const { backend } = e;
  const parameters = e.tensor("parameters");
  const [m, v] = [0, 1].map(() => e.zeros("parameters"));
  const [sumOfSquares, clip] = [backend.allocate([1]), backend.allocate([2])];
  const names = ["learningRate", "beta1", "beta2", "epsilon", "weightDecay"] as const;
  const options = Object.fromEntries(names.map((name) => [name, e.number(name)])) as Record<
    typeof names[number],
    number
  >;
  operations.adamw.outputs.steps!.forEach((expected, i) => {
    const gradients = backend.upload(Float64Array.from(expected.gradients));
    backend.sumOfSquares({ x: gradients, out: sumOfSquares });
    backend.clipFactor({ sumOfSquares, maxNorm: e.number("maxNorm"), out: clip });
    assertAlmostEquals(backend.read64(clip)[0], expected.norm, 1e-12);
    backend.adamw({ parameters, gradients, m, v, clip, ...options, step: i + 1 });
    close(backend.read64(parameters), expected.parameters, `step ${i + 1}`);
  });
});
