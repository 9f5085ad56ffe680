import { assert, assertEquals } from "@std/assert";
import { parseConfig } from "../src/model/config.ts";
import { endToEnd } from "../src/tensor/sequences.ts";
import { isMatrix, parameterShapes, Transformer } from "../src/model/transformer.ts";
import { Arena } from "../src/tensor/arena.ts";
import { Ops } from "../src/tensor/ops.ts";
import { uniform } from "../src/tensor/random.ts";
import { Tape } from "../src/tensor/tape.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { ReferenceBackend } from "./support/reference.ts";

const config = parseConfig(
  {
    vocab_size: 13,
    n_positions: 8,
    n_embd: 6,
    n_head: 2,
    n_layer: 2,
    n_inner: 10,
    scale_attn_by_inverse_layer_idx: true,
  },
  "test",
);

/** A tiny network in float64, with adapters on every layer, and its loss on two ragged sequences. */
function setUp() {
  const backend = new ReferenceBackend();
  const arena = new Arena(backend);
  const parameters = new Map<string, Tensor>();
  let index = 0;
  const random = (shape: readonly number[], around = 0) => {
    const key = [7, index++] as const;
    const length = shape.reduce((a, b) => a * b, 1);
    const tensor = backend.upload(
      Float32Array.from({ length }, (_, i) => around + uniform(i, key) - 0.5),
      shape,
    );
    tensor.requiresGradient = true;
    return tensor;
  };
  for (const [name, shape] of parameterShapes(config)) {
    parameters.set(name, random(shape, /ln_.*weight/.test(name) ? 1 : 0));
  }
  const network = new Transformer(config, parameters);
  for (const [name, linear] of network.linears()) {
    const [width, out] = linear.weight.shape;
    linear.lora = { A: random([3, width]), B: random([out, 3]), scaling: 0.7, dropout: 0.25 };
    parameters.set(`${name}.lora_A`, linear.lora.A);
    parameters.set(`${name}.lora_B`, linear.lora.B);
  }
  const { tokens, positions, starts, ends } = endToEnd([[1, 5, 12, 5], [3, 0, 7]]);
  const rows = Uint32Array.of(1, 2, 4, 5), targets = Uint32Array.of(12, 5, 0, 7);
  const loss = (tape: Tape | null): Tensor => {
    let place = 0;
    const ops = new Ops(arena, tape, () => [11, place++]);
    const hidden = network.forward(ops, {
      tokens: arena.upload(tokens),
      positions: arena.upload(positions),
      context: { starts: arena.upload(starts), ends: arena.upload(ends) },
      counted: arena.upload(rows),
    });
    return ops.crossEntropy(hidden, network.wte, arena.upload(targets), 1 / targets.length);
  };
  const hiddenStates = (counted?: Uint32Array): Float64Array =>
    arena.scope(() =>
      backend.read64(network.forward(new Ops(arena), {
        tokens: arena.upload(tokens),
        positions: arena.upload(positions),
        context: { starts: arena.upload(starts), ends: arena.upload(ends) },
        counted: counted && arena.upload(counted),
      }))
    );
  const value = () =>
    arena.scope(() => backend.read64(loss(null)).reduce((a, b) => a + b, 0) / targets.length);
  return { backend, arena, parameters, loss, value, hiddenStates };
}

Deno.test("rows that are wanted alone are what they are among all, in the order that they are wanted in", () => {
  const { hiddenStates } = setUp();
  const all = hiddenStates(), C = config.n_embd;
  for (const rows of [[6], [0, 3, 6], [5, 1, 1]]) {
    const expected = rows.flatMap((row) => [...all.subarray(row * C, (row + 1) * C)]);
    assertEquals([...hiddenStates(Uint32Array.from(rows))], expected);
  }
});

Deno.test("the gradient of every parameter of the whole network equals finite differences in float64", () => {
  const { backend, arena, parameters, loss, value } = setUp();
  const gradients = new Map<string, Tensor>();
  arena.scope(() => {
    const tape = new Tape(arena);
    for (const [name, tensor] of parameters) {
      const gradient = backend.allocate(tensor.shape);
      backend.fill({ out: gradient, value: 0 });
      gradients.set(name, gradient);
      tape.bind(tensor, gradient);
    }
    tape.backward(loss(tape));
  });
  assertEquals(arena.size, 0, "the backward pass let go of every temporary");
  for (const [name, tensor] of parameters) {
    const values = backend.read64(tensor), gradient = backend.read64(gradients.get(name)!);
    const lossWith = (i: number, change: number) => {
      backend.write(tensor, values.map((x, j) => i === j ? x + change : x));
      const loss = value();
      backend.write(tensor, values);
      return loss;
    };
    for (const i of new Set([0, 1, values.length >> 1, values.length - 1])) {
      const h = 1e-5;
      const expected = (lossWith(i, h) - lossWith(i, -h)) / (2 * h);
      assert(
        Math.abs(gradient[i] - expected) < 1e-8 + 1e-6 * Math.abs(expected),
        `${name}[${i}]: ${gradient[i]}, by differences ${expected}`,
      );
    }
  }
});

Deno.test("matrices, and nothing else, are packed and decay", () => {
  const names = [...parameterShapes(config).keys()];
  assertEquals(
    names.filter((name) => !isMatrix(name) && name.startsWith("h.1.")).map((name) => name.slice(4)),
    [
      "ln_1.weight",
      "ln_1.bias",
      "attn.c_attn.bias",
      "attn.c_proj.bias",
      "ln_2.weight",
      "ln_2.bias",
      "mlp.c_fc.bias",
      "mlp.c_proj.bias",
    ],
  );
});
