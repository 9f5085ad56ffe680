/** Proof that the conformance suite passes right kernels and fails wrong ones. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import type { Backend } from "../src/tensor/backend.ts";
import { suite } from "./support/cases.ts";
import { type Case, compare } from "./support/lab.ts";
import { ReferenceBackend } from "./support/reference.ts";

const allCases = suite({ activationStep: () => 0 });

/** Every third case of a kernel: enough here, for all of them run on every backend. */
function some(cases: Record<string, Case>): Record<string, Case> {
  return Object.fromEntries(Object.entries(cases).filter((_, i) => i % 3 === 0));
}

Deno.test("the suite passes the reference rounded to f32", async () => {
  using backend = new ReferenceBackend(Float32Array);
  for (const cases of Object.values(allCases)) {
    await compare(backend, some(cases));
  }
  assertEquals(backend.stats().allocations, 0);
});

/** Things that go wrong in kernels: the cases that should notice, and the kernel that does it. */
const MISTAKES: Record<string, [keyof typeof allCases, (right: ReferenceBackend) => Partial<Backend>]> = {
  "forgets to accumulate": ["matmul of plain matrices", (right) => ({
    matmul: (args) => right.matmul({ ...args, accumulate: false }),
  })],
  "adds to an output that it should overwrite": ["layerNormBackward", (right) => ({
    layerNormBackward: (args) => right.layerNormBackward({ ...args, accumulate: true }),
  })],
  "scales the bias too": ["matmul of plain matrices", (right) => ({
    matmul(args) {
      const bias = args.bias && right.upload(right.read64(args.bias).map((x) => x * (args.alpha ?? 1)));
      right.matmul({ ...args, bias });
      if (bias) right.free(bias);
    },
  })],
  "mistakes a matrix for its transpose": ["matmul with packed weights", (right) => ({
    matmul: (args) => right.matmul({ ...args, transposeB: !args.transposeB }),
  })],
  "drops the last product of an odd sum": ["matmul of plain matrices", (right) => ({
    matmul(args) {
      const { a, out } = args;
      const [M, K] = args.transposeA ? [a.shape[1], a.shape[0]] : a.shape;
      if (K % 2 === 0 || args.transposeA) return right.matmul(args);
      const short = right.upload(right.read64(a).map((x, i) => i % K === K - 1 ? 0 : x), [M, K]);
      right.matmul({ ...args, a: short, out });
      right.free(short);
    },
  })],
  "attends across sequences": ["attention", (right) => ({
    attention(args) {
      const starts = right.upload(new Uint32Array(args.starts.length));
      right.attention({ ...args, starts });
      right.free(starts);
    },
  })],
  "takes relative positions the other way round": ["disentangledAttention", (right) => ({
    disentangledAttention(args) {
      const buckets = args.buckets && right.upload(Uint32Array.from(right.read64(args.buckets)).reverse());
      right.disentangledAttention({ ...args, buckets });
      if (buckets) right.free(buckets);
    },
  })],
  "sees only what came before": ["disentangledAttention", (right) => ({
    disentangledAttention(args) {
      const ends = right.upload(Uint32Array.from({ length: args.ends.length }, (_, t) => t + 1));
      right.disentangledAttention({ ...args, ends });
      right.free(ends);
    },
  })],
  "takes one GELU for the other": ["gelu by the error function", (right) => ({
    gelu: ({ x, out }) => right.gelu({ x, out }),
  })],
  "writes beyond its output": ["gelu", (right) => ({
    gelu(args) {
      right.gelu(args);
      // What follows is someone else's, where anything follows.
      if (args.out.offset) right.fill({ out: args.out.slice(args.out.length, [1]), value: 0 });
    },
  })],
  "changes an input": ["add", (right) => ({
    add(args) {
      right.add(args);
      if (args.a !== args.out) right.fill({ out: args.a.slice(0, [1]), value: 2 });
    },
  })],
  "leaves the last element out": ["copy", (right) => ({
    copy({ x, out }) {
      right.copy({ x: x.slice(0, [x.length - 1]), out: out.slice(0, [x.length - 1]) });
    },
  })],
  "counts elements from the start of the memory": ["dropout", (right) => ({
    dropout: (args) => right.dropout({ ...args, key: [args.key[0], args.key[1] + args.x.offset] }),
  })],
  "sees the future": ["cachedAttention", (right) => ({
    cachedAttention(args) {
      right.cachedAttention(args);
      const last = Math.max(...right.read64(args.positions));
      const positions = right.upload(new Uint32Array(args.positions.length).fill(last));
      right.cachedAttention({ ...args, positions });
      right.free(positions);
    },
  })],
  "gives other bits in another run": ["sumOfSquares", (right) => ({
    sumOfSquares(args) {
      right.sumOfSquares(args);
      const off = right.upload(Float32Array.of(1 + 2 ** -22 * Number(args.x.offset > 0)));
      const was = right.upload(right.read64(args.out));
      right.matmul({ a: was.slice(0, [1, 1]), b: off.slice(0, [1, 1]), out: args.out.slice(0, [1, 1]) });
      for (const tensor of [off, was]) right.free(tensor);
    },
  })],
  "computes 1 − β₂ in f32": ["adamw", (right) => ({
    adamw: (args) => right.adamw({ ...args, beta2: Math.fround(args.beta2) }),
  })],
  "forgets what it chose": ["sample", (right) => ({
    sample(args) {
      const was = args.seen && right.upload(right.read64(args.seen));
      right.sample(args);
      if (was) right.copy({ x: was, out: args.seen! });
      if (was) right.free(was);
    },
  })],
  "keeps one token too many": ["sample", (right) => ({
    sample: (args) =>
      right.sample({ ...args, rows: args.rows.map((row) => ({ ...row, topK: row.topK && row.topK + 1 })) }),
  })],
  "overflows in the softmax": ["crossEntropy", (right) => ({
    crossEntropy(args) {
      const overflows = right.read64(args.logits).some((x) => x > 88);
      right.crossEntropy(args);
      if (overflows) right.fill({ out: args.loss, value: Infinity });
    },
  })],
};

for (const [mistake, [kernel, change]] of Object.entries(MISTAKES)) {
  Deno.test(`the suite fails a kernel that ${mistake}`, async () => {
    const right = new ReferenceBackend(Float32Array);
    const wrong = Object.assign(new ReferenceBackend(Float32Array), change(right));
    const error = await assertRejects(() => compare(wrong, some(allCases[kernel])), Error);
    assertMatch(error.message, /is .*, expected|changed at|in another/);
  });
}
