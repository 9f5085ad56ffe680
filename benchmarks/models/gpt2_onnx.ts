/**
 * A GPT-2 of Whet's as a graph for transformers.js: token ids, and keys and values of the tokens before them, to
 * the last token's logits, and all tokens' keys and values.
 *
 * @module
 */
import type { GPT2 } from "../../src/gpt2.ts";
import { parameterShapes } from "../../src/model/transformer.ts";
import { Graph, type Port } from "./onnx.ts";

/**
 * The file of a model, for one sequence without padding.
 *
 * @param model The model, in f32.
 * @returns Its bytes, in pieces.
 */
export async function gpt2Onnx(model: GPT2): Promise<Uint8Array[]> {
  const { n_layer, n_head: H, n_embd: C, vocab_size: V, layer_norm_epsilon } = model.config;
  const D = C / H;
  const cached = (prefix: string, length: string): Port[] =>
    Array.from({ length: n_layer }, (_, i) => i).flatMap((i) =>
      ["key", "value"].map((name) => (
        { name: `${prefix}.${i}.${name}`, type: "float", shape: ["B", H, length, D] } as const
      ))
    );
  const graph = new Graph(
    [{ name: "input_ids", type: "int64", shape: ["B", "T"] }, ...cached("past_key_values", "P")],
    [{ name: "logits", type: "float", shape: ["B", 1, V] }, ...cached("present", "P + T")],
  );
  const add = graph.add.bind(graph);
  const weights = new Map<string, string>();
  for (const [name, shape] of parameterShapes(model.config)) {
    weights.set(name, graph.constant((await model.parameter(name)).slice(), shape));
  }
  const w = (name: string) => weights.get(name)!;
  const epsilon = { float: layer_norm_epsilon };
  const norm = (x: string, name: string) =>
    add("LayerNormalization", [x, w(`${name}.weight`), w(`${name}.bias`)], { epsilon });
  const linear = (x: string, name: string) =>
    add("Add", [add("MatMul", [x, w(`${name}.weight`)]), w(`${name}.bias`)]);
  const [zero, one, two] = [0, 1, 2].map((value) => graph.constant(BigInt64Array.of(BigInt(value)), []));

  // Positions of the new tokens, (T), and which of all tokens, (P + T), each may see.
  const past = add("Gather", [add("Shape", ["past_key_values.0.key"]), two]);
  const all = add("Add", [past, add("Gather", [add("Shape", ["input_ids"]), one])]);
  const positions = add("Range", [past, all, one]);
  const seen = add("LessOrEqual", [
    add("Unsqueeze", [add("Range", [zero, all, one]), graph.ints(0)]),
    add("Unsqueeze", [positions, graph.ints(1)]),
  ]);
  const scalar = (value: number) => graph.constant(Float32Array.of(value), []);
  const mask = add("Where", [seen, scalar(0), scalar(-1e9)]); // (T, P + T)

  let x = add("Add", [
    add("Gather", [w("wte.weight"), "input_ids"]),
    add("Gather", [w("wpe.weight"), positions]),
  ]); // (B, T, C)
  const heads = graph.ints(0, 0, H, D), channels = graph.ints(0, 0, C);
  const scale = scalar(1 / Math.sqrt(D));
  for (let i = 0; i < n_layer; i++) {
    const qkv = [graph.name(), graph.name(), graph.name()];
    add("Split", [linear(norm(x, `h.${i}.ln_1`), `h.${i}.attn.c_attn`)], { axis: -1, num_outputs: 3 }, qkv);
    const [q, k, v] = qkv.map((part) =>
      add("Transpose", [add("Reshape", [part, heads])], { perm: [0, 2, 1, 3] }) // (B, H, T, D)
    );
    const [keys, values] = [[k, "key"], [v, "value"]].map(([part, name]) =>
      add("Concat", [`past_key_values.${i}.${name}`, part], { axis: 2 }, [`present.${i}.${name}`])
    );
    const scores = add("MatMul", [q, add("Transpose", [keys], { perm: [0, 1, 3, 2] })]);
    const weighted = add("Softmax", [add("Add", [add("Mul", [scores, scale]), mask])], { axis: -1 });
    const attended = add("Transpose", [add("MatMul", [weighted, values])], { perm: [0, 2, 1, 3] });
    x = add("Add", [x, linear(add("Reshape", [attended, channels]), `h.${i}.attn.c_proj`)]);
    const inner = linear(norm(x, `h.${i}.ln_2`), `h.${i}.mlp.c_fc`);
    x = add("Add", [x, linear(add("Gelu", [inner], { approximate: "tanh" }), `h.${i}.mlp.c_proj`)]);
  }
  const last = add("Gather", [norm(x, "ln_f"), graph.ints(-1)], { axis: 1 }); // (B, 1, C)
  add("MatMul", [last, add("Transpose", [w("wte.weight")], { perm: [1, 0] })], {}, ["logits"]);
  return graph.file(20);
}
