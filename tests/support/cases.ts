/**
 * The conformance suite's cases: every kernel at odd sizes and with every flag that matters.
 *
 * @module
 */
import { NO_ADAPTER } from "../../src/tensor/backend.ts";
import type { GroupAxis, WeightFormat } from "../../src/tensor/tensor.ts";
import type { Candidate } from "./backends.ts";
import { type Case, EPSILON, exact, type Lab, rounded, sumOf } from "./lab.ts";
import { type Choice, midway, PLAIN } from "./sampling.ts";

/** Sizes around the tiles and vectors that kernels are made of, and primes. */
const LENGTHS = [1, 2, 3, 7, 63, 64, 65, 255, 257, 1021, 70_001];

/** Every combination of one value of each list, named. */
function* product<T extends Record<string, readonly unknown[]>>(
  axes: T,
): Generator<[string, { [K in keyof T]: T[K][number] }]> {
  const names = Object.keys(axes);
  const choose = function* (i: number, chosen: Record<string, unknown>): Generator<Record<string, unknown>> {
    if (i === names.length) return yield { ...chosen };
    for (const value of axes[names[i]]) yield* choose(i + 1, { ...chosen, [names[i]]: value });
  };
  for (const chosen of choose(0, {})) {
    const name = names.map((key) => `${key}=${JSON.stringify(chosen[key])}`).join(" ");
    yield [name, chosen as { [K in keyof T]: T[K][number] }];
  }
}

/** Cases by name, one for every combination. */
function cases<T extends Record<string, readonly unknown[]>>(
  axes: T,
  run: (lab: Lab, chosen: { [K in keyof T]: T[K][number] }) => void,
): Record<string, Case> {
  return Object.fromEntries(
    [...product(axes)].map(([name, chosen]) => [name, (lab: Lab) => run(lab, chosen)]),
  );
}

// Matrix products

/** (M, N, K): one row, adapters' skinny sides, around tiles, odd vocabularies, long sums. */
const PRODUCTS = [
  [1, 1, 1],
  [1, 1, 7],
  [1, 17, 33],
  [1, 64, 64],
  [1, 211, 20],
  [1, 768, 257],
  [3, 1, 5],
  [2, 3, 5],
  [70, 1, 31],
  [70, 3, 64],
  [127, 8, 65],
  [31, 70, 1],
  [64, 65, 3],
  [65, 127, 8],
  [7, 9, 15],
  [8, 8, 8],
  [9, 7, 17],
  [15, 17, 31],
  [16, 16, 16],
  [17, 15, 33],
  [31, 33, 63],
  [32, 48, 32],
  [33, 31, 65],
  [64, 64, 64],
  [63, 65, 129],
  [65, 129, 63],
  [128, 32, 16],
  [4, 2305, 20],
  [2, 11, 3073],
] as const; // deno-fmt-ignore

const EPILOGUES = [
  {},
  { accumulate: true },
  { bias: true },
  { activation: "gelu" },
  { bias: true, activation: "gelu" },
  { residual: "another" },
  { residual: "itself" },
  { bias: true, residual: "another" },
  { bias: true, activation: "gelu", residual: "itself" },
  { bias: true, accumulate: true },
  { residual: "another", accumulate: true },
] as const;

const transposes = { transposeA: [false, true], transposeB: [false, true] };

function matmul(lab: Lab, chosen: {
  size: readonly [number, number, number];
  transposeA?: boolean;
  transposeB?: boolean;
  alpha?: number;
  format?: WeightFormat;
  axis?: GroupAxis;
  epilogue?: { accumulate?: true; bias?: true; activation?: "gelu"; residual?: "another" | "itself" };
}, activationStep: Candidate["activationStep"] = () => 0): void {
  const { size: [M, N, K], transposeA, transposeB, alpha, format, axis, epilogue = {} } = chosen;
  const { absolute, relative } = sumOf(K + 2);
  // Rounded activations are off by at most a step each; in the sum of K those errors mostly cancel.
  const step = format ? activationStep(format, !!transposeB !== (axis === 1)) : 0;
  const tolerance = { absolute: absolute + step * 4 * Math.sqrt(K), relative };
  const changes = epilogue.accumulate || epilogue.residual === "itself";
  const out = changes ? lab.updated([M, N], tolerance) : lab.output([M, N], tolerance);
  const [rows, columns] = transposeB ? [N, K] : [K, N];
  lab.backend.matmul({
    a: lab.input(transposeA ? [K, M] : [M, K]),
    b: format ? lab.packed(rows, columns, format, axis) : lab.input([rows, columns]),
    out,
    transposeA,
    transposeB,
    alpha,
    accumulate: epilogue.accumulate,
    activation: epilogue.activation,
    bias: epilogue.bias && lab.input([N]),
    residual: epilogue.residual === "itself" ? out : epilogue.residual && lab.input([M, N]),
  });
}

// Attention

/** Lengths of the sequences that lie end to end. */
const RAGGED = [[1], [5], [1, 1, 1], [3, 1, 7, 2], [33, 1, 64, 65]] as const;
const HEADS = [[1, 1], [3, 4], [3, 5], [2, 16], [1, 20], [2, 20], [1, 64], [2, 64], [1, 80]] as const;

function attention(lab: Lab, { lengths, heads: [H, D], magnitude, backward }: {
  lengths: readonly number[];
  heads: readonly [number, number];
  magnitude: number;
  backward: boolean;
}): void {
  const T = lengths.reduce((sum, length) => sum + length, 0);
  const C = H * D;
  const firsts = lengths.map((_, i) => lengths.slice(0, i).reduce((sum, length) => sum + length, 0));
  const starts = lab.indices(lengths.flatMap((length, i) => Array(length).fill(firsts[i])));
  const ends = lab.indices(lengths.flatMap((length, i) => Array(length).fill(firsts[i] + length)));
  const scale = 1 / Math.sqrt(D);
  // A probability is as wrong as its logit, a sum of D products.
  const error = D * scale * magnitude + Math.sqrt(T);
  const content = lab.numbers(T * 3 * C);
  content.forEach((x, i) => content[i] = i % (3 * C) < C ? x * magnitude : x);
  const qkv = lab.input([T, 3 * C], content);
  const out = lab.output([T, C], sumOf(error));
  const logSumExp = lab.output([T, H], sumOf(error));
  lab.backend.attention({ qkv, starts, out, logSumExp, heads: H, scale });
  if (!backward) return;
  const dOut = lab.input([T, C]);
  const dQkv = lab.output([T, 3 * C], sumOf(error, magnitude * scale * Math.sqrt(D) * 2));
  lab.backend.attentionBackward({ qkv, starts, ends, out, logSumExp, dOut, dQkv, heads: H, scale });
}

/** Which of the two tables a model of relative positions has. */
const POSITIONS = {
  neither: [false, false],
  keys: [true, false],
  queries: [false, true],
  both: [true, true],
} as const;

/** Rows by relative position, as far as `reach`: each its own near 0, ever more in one away from it, as DeBERTa has them. */
function buckets(reach: number, near: number): { rows: number[]; count: number } {
  const far = (distance: number) =>
    distance <= near ? distance : near + Math.ceil(near * Math.log2(distance / near));
  const most = far(reach);
  const rows = Array.from({ length: 2 * reach + 1 }, (_, i) => {
    return most + Math.sign(i - reach) * far(Math.abs(i - reach));
  });
  return { rows, count: 2 * most + 1 };
}

function disentangledAttention(lab: Lab, { lengths, heads: [H, D], positions, magnitude, near }: {
  lengths: readonly number[];
  heads: readonly [number, number];
  positions: keyof typeof POSITIONS;
  magnitude: number;
  near: number;
}): void {
  const T = lengths.reduce((sum, length) => sum + length, 0);
  const C = H * D;
  const firsts = lengths.map((_, i) => lengths.slice(0, i).reduce((sum, length) => sum + length, 0));
  const [hasKeys, hasQueries] = POSITIONS[positions];
  const { rows, count: P } = buckets(Math.max(...lengths) + 2, near);
  const scale = 1 / Math.sqrt(D * (1 + Number(hasKeys) + Number(hasQueries)));
  const content = lab.numbers(T * 3 * C);
  content.forEach((x, i) => content[i] = i % (3 * C) < C ? x * magnitude : x);
  lab.backend.disentangledAttention({
    qkv: lab.input([T, 3 * C], content),
    positionKeys: hasKeys ? lab.input([P, C]) : undefined,
    positionQueries: hasQueries ? lab.input([P, C], magnitude) : undefined,
    buckets: hasKeys || hasQueries ? lab.indices(rows) : undefined,
    starts: lab.indices(lengths.flatMap((length, i) => Array(length).fill(firsts[i]))),
    ends: lab.indices(lengths.flatMap((length, i) => Array(length).fill(firsts[i] + length))),
    // A probability is as wrong as its logit, a sum of up to 3D products.
    out: lab.output([T, C], sumOf(3 * D * scale * magnitude + Math.sqrt(T))),
    heads: H,
    scale,
  });
}

/** Rows as [slot, position], of three slots of 70 positions or, where it says so, of 49 or 16. */
const CACHED: Record<string, [number, number][]> = {
  "first token": [[0, 0]],
  "one sequence's next token": [[1, 37]],
  "last position": [[2, 69]],
  "last position of 49": [[2, 48]],
  "last position of 16": [[1, 15]],
  "every slot's next token": [[0, 5], [1, 0], [2, 69]],
  "prompt": Array.from({ length: 70 }, (_, t) => [1, t]),
  "continued prompt": Array.from({ length: 33 }, (_, t) => [2, 17 + t]),
  "continued prompt of 49": Array.from({ length: 9 }, (_, t) => [2, 40 + t]),
  "prompts and next tokens among each other": [[2, 0], [0, 64], [2, 1], [1, 7], [1, 8], [2, 2], [0, 65]],
};

function cachedAttention(lab: Lab, { rows, heads: [H, D], magnitude, dtype }: {
  rows: string;
  heads: readonly [number, number];
  magnitude: number;
  dtype: "f32" | "f16";
}): void {
  const places = CACHED[rows];
  const [C, slots, positions] = [H * D, 3, Number(/of (\d+)$/.exec(rows)?.[1] ?? 70)];
  const scale = 1 / Math.sqrt(D);
  // What lies beyond the sequences so far is poison. Halves are rounded exactly as the reference rounds them.
  const cache = {
    keys: lab.cache([slots, positions, C], dtype),
    values: lab.cache([slots, positions, C], dtype),
  };
  const attend = (places: [number, number][]) => {
    const T = places.length;
    const content = lab.numbers(T * 3 * C);
    content.forEach((x, i) => content[i] = i % (3 * C) >= C && i % (3 * C) < 2 * C ? x * magnitude : x);
    lab.backend.cachedAttention({
      ...cache,
      qkv: lab.input([T, 3 * C], content),
      slots: lab.indices(places.map(([slot]) => slot)),
      positions: lab.indices(places.map(([, position]) => position)),
      out: lab.output([T, C], sumOf(D * scale * magnitude + Math.sqrt(positions))),
      heads: H,
      scale,
    });
  };
  const before = [0, 1, 2].flatMap((slot) => {
    const known = Math.min(...places.filter(([s]) => s === slot).map(([, position]) => position));
    return Array.from({ length: Number.isFinite(known) ? known : 0 }, (_, p): [number, number] => [slot, p]);
  });
  if (before.length > 0) attend(before);
  attend(places);
}

// The next token

/** Ways to choose, which rows of a batch take in turn. */
const CHOICES: Choice[] = [
  PLAIN,
  { ...PLAIN, temperature: 0 },
  { ...PLAIN, temperature: 0.5 },
  { ...PLAIN, topK: 4 },
  { ...PLAIN, topP: 0.7 },
  { ...PLAIN, repetitionPenalty: 1.8 },
  { temperature: 1.5, topK: 6, topP: 0.8, repetitionPenalty: 1 },
  { temperature: 2, topK: 40, topP: 0.9, repetitionPenalty: 0.5 },
  { ...PLAIN, temperature: 0, repetitionPenalty: 1.3 },
  { ...PLAIN, temperature: 3, topP: 0.95 },
  { ...PLAIN, topK: 1 },
  { ...PLAIN, topK: 1000, temperature: 0.8 },
  { ...PLAIN, topP: 1e-9 },
  { ...PLAIN, temperature: 1e-300, topK: 3 },
];

/** Logits of a kind, and how far from 0 they lie. */
const LOGITS: Record<string, [magnitude: number, (lab: Lab, N: number, V: number) => Float32Array]> = {
  "as a model has them": [40, (lab, N, V) => lab.numbers(N * V, 8, -30)],
  "flat, around 0": [1, (lab, N, V) => lab.numbers(N * V, 0.01)],
  "far apart": [1e4, (lab, N, V) => lab.numbers(N * V, 1e4)],
  "all equal": [1, (_, N, V) => new Float32Array(N * V).fill(-0.25)],
  "many equal, zeros of both signs": [4, (lab, N, V) => lab.numbers(N * V, 4).map(Math.trunc)],
  "some broken": [40, (lab, N, V) => {
    const content = lab.numbers(N * V, 8, -30);
    for (let n = 0; n < N; n++) {
      const at = n * V + n * 7 % V;
      if (n % 5 === 0) content[at] = [NaN, Infinity][n % 2];
      if (n % 5 === 1) content.fill(-Infinity, n * V, n * V + V - 1); // one is left
      if (n % 5 === 2) content.fill(-Infinity, n * V, (n + 1) * V);
      if (n % 5 === 3) content[at] = -Infinity;
      if (n % 5 === 4) new Uint32Array(content.buffer)[(n + 1) * V - 1] = 0xffffffff; // another NaN
    }
    return content;
  }],
};

/** The rows of each case: it takes long to find out where rounding decides nothing. */
const settled = new Map<string, (Choice & { draw: number })[]>();

function sample(lab: Lab, chosen: {
  size: readonly [number, number];
  kind: string;
  from: number;
  sets: boolean;
}): void {
  const { size: [N, V], kind, from, sets } = chosen;
  const [magnitude, make] = LOGITS[kind];
  const logits = make(lab, N, V);
  const draws = lab.numbers(N, 0.5, 0.5);
  // A quarter of all tokens were seen; bits beyond the vocabulary mean nothing.
  const [slots, words] = [N + 2, Math.ceil(V / 32) + 1];
  const bits = new Uint32Array(lab.numbers(2 * slots * words).buffer);
  const seen = Uint32Array.from({ length: slots * words }, (_, i) => bits[2 * i] & bits[2 * i + 1] << 9);
  const slotOf = (n: number) => (n * 2 + 1) % slots;
  const key = JSON.stringify(chosen);
  const rows = settled.get(key) ?? draws.reduce((rows, draw, n) => {
    const row = { ...CHOICES[(from + n) % CHOICES.length], draw, ...(sets ? {} : { repetitionPenalty: 1 }) };
    const isSeen = (v: number) => (seen[slotOf(n) * words + (v >> 5)] >>> (v & 31)) % 2 === 1;
    return [...rows, midway(logits.subarray(n * V, (n + 1) * V), row, isSeen)];
  }, [] as (Choice & { draw: number })[]);
  settled.set(key, rows);
  const error = (32 + 2 * Math.sqrt(V) + 6 * magnitude) * EPSILON;
  lab.backend.sample({
    logits: lab.input([N, V], logits),
    rows: rows.map((row, n) => ({ ...row, slot: slotOf(n) })),
    seen: sets ? lab.updatedIndices([slots, words], seen) : undefined,
    tokens: lab.outputIndices([N]),
    logProbs: lab.output([N], { absolute: error, relative: 4 * EPSILON }),
  });
}

// The whole interface

/** Every kernel's cases. */
export function suite(
  { activationStep }: Pick<Candidate, "activationStep">,
): Record<string, Record<string, Case>> {
  return {
    "matmul of plain matrices": {
      ...cases({ size: PRODUCTS, ...transposes }, matmul),
      ...cases(
        {
          size: [[1, 17, 33], [17, 15, 33], [65, 33, 17]],
          transposeB: [false, true],
          epilogue: EPILOGUES,
          alpha: [0.375],
        } as const,
        matmul,
      ),
      ...cases(
        {
          size: [[17, 15, 33]],
          transposeA: [true],
          ...{ epilogue: EPILOGUES.slice(0, 3), alpha: [-2] },
        } as const,
        matmul,
      ),
    },
    "matmul with packed weights": {
      ...cases(
        { size: PRODUCTS, format: ["f32", "f16", "q8", "q4"], transposeB: [false, true] } as const,
        (lab, chosen) => matmul(lab, chosen, activationStep),
      ),
      ...cases(
        { size: PRODUCTS, format: ["q8", "q4"], transposeB: [false, true], axis: [1] } as const,
        (lab, chosen) => matmul(lab, chosen, activationStep),
      ),
      ...cases(
        {
          size: [[1, 17, 33], [65, 33, 17]],
          format: ["f32", "f16", "q8", "q4"],
          epilogue: EPILOGUES,
          alpha: [0.375],
        } as const,
        (lab, chosen) => matmul(lab, chosen, activationStep),
      ),
    },
    "embedding": cases(
      {
        T: [1, 5, 33],
        C: [1, 3, 20, 64, 65, 769],
        format: ["plain", "f32", "f16", "q8", "q4"],
        axis: [0, 1],
      } as const,
      (lab, { T, C, format, axis }) => {
        const [V, positions] = [53, 37];
        lab.backend.embedding({
          wte: format === "plain" ? lab.input([V, C]) : lab.packed(V, C, format, axis),
          wpe: lab.input([positions, C]),
          tokens: lab.indices(Array.from({ length: T }, (_, t) => t === 1 ? V - 1 : t * 17 % V)),
          positions: lab.indices(Array.from({ length: T }, (_, t) => (positions - 1 + t) % positions)),
          out: lab.output([T, C], sumOf(1)),
        });
      },
    ),
    "embeddingBackward": cases(
      { T: [1, 5, 33], C: [1, 3, 20, 65, 769], of: ["both", "wte", "wpe"] } as const,
      (lab, { T, C, of }) => {
        lab.backend.embeddingBackward({
          tokens: lab.indices(Array.from({ length: T }, (_, t) => t % 3 ? t % 7 : 52)),
          positions: lab.indices(Array.from({ length: T }, (_, t) => t % 11)),
          dOut: lab.input([T, C]),
          dWte: of === "wpe" ? undefined : lab.updated([53, C], sumOf(T)),
          dWpe: of === "wte" ? undefined : lab.updated([37, C], sumOf(T)),
        });
      },
    ),
    "layerNorm": cases(
      { T: [1, 3, 33], C: [1, 2, 3, 20, 64, 65, 257, 768, 1601], centre: [0, 100] } as const,
      (lab, { T, C, centre }) => {
        const error = sumOf(Math.sqrt(C), 2 + centre);
        lab.backend.layerNorm({
          // Two numbers by chance nearly equal have no deviation to speak of: these lie apart.
          x: lab.input([T, C], lab.numbers(T * C, 1, centre).map((x, i) => x + (i % C) % 2 * 2)),
          weight: lab.input([C]),
          bias: lab.input([C]),
          out: lab.output([T, C], error),
          mean: lab.output([T], sumOf(Math.sqrt(C), 1 + centre)),
          // A row of one has the largest there is, 316.
          rstd: lab.output([T], { absolute: 0, relative: error.absolute }),
          epsilon: 1e-5,
        });
      },
    ),
    "layerNormBackward": cases(
      {
        size: [[1, 1], [3, 20], [33, 65], [5, 257], [130, 64], [2, 1601]],
        dX: ["no", "overwritten", "added to"],
        dWeight: [false, true],
        dBias: [false, true],
      } as const,
      (lab, { size: [T, C], dX, dWeight, dBias }) => {
        const x = lab.input([T, C], 2);
        const weight = lab.input([C]);
        const mean = lab.output([T], sumOf(Math.sqrt(C), 2));
        const rstd = lab.output([T], sumOf(Math.sqrt(C), 4));
        const out = lab.output([T, C], sumOf(Math.sqrt(C), 4));
        lab.backend.layerNorm({ x, weight, bias: lab.input([C]), out, mean, rstd, epsilon: 1e-5 });
        // In a row of one everything cancels and rstd, 316, multiplies what remains.
        const error = sumOf(Math.sqrt(C), C === 1 ? 316 : 8);
        lab.backend.layerNormBackward({
          x,
          weight,
          mean,
          rstd,
          dOut: lab.input([T, C]),
          dX: dX === "no"
            ? undefined
            : dX === "added to"
            ? lab.updated([T, C], error)
            : lab.output([T, C], error),
          accumulate: dX === "added to",
          dWeight: dWeight ? lab.updated([C], sumOf(T, 4)) : undefined,
          dBias: dBias ? lab.updated([C], sumOf(T)) : undefined,
        });
      },
    ),
    "gelu": cases({ length: LENGTHS, magnitude: [6, 1e4] } as const, (lab, { length, magnitude }) => {
      lab.backend.gelu({ x: lab.input([length], magnitude), out: lab.output([length], sumOf(0)) });
    }),
    "gelu by the error function": cases(
      { length: LENGTHS, magnitude: [1, 6, 1e4] } as const,
      (lab, { length, magnitude }) => {
        const x = lab.input([length], magnitude);
        lab.backend.gelu({ x, out: lab.output([length], sumOf(0)), exact: true });
      },
    ),
    "geluBackward": cases(
      { length: LENGTHS, magnitude: [6, 1e4], accumulate: [false, true] } as const,
      (lab, { length, magnitude, accumulate }) => {
        const error = sumOf(2);
        lab.backend.geluBackward({
          x: lab.input([length], magnitude),
          dOut: lab.input([length]),
          dX: accumulate ? lab.updated([length], error) : lab.output([length], error),
          accumulate,
        });
      },
    ),
    "attention": {
      ...cases({ lengths: RAGGED, heads: HEADS, magnitude: [1, 80], backward: [false] } as const, attention),
      ...cases(
        { lengths: [[3, 1, 7, 2], [130]], heads: HEADS, magnitude: [3e4], backward: [false] } as const,
        attention,
      ),
    },
    "attentionBackward": {
      ...cases({ lengths: RAGGED, heads: HEADS, magnitude: [1, 10], backward: [true] } as const, attention),
      ...cases(
        { lengths: [[3, 1, 7, 2], [130]], heads: [[2, 64]], magnitude: [3e3], backward: [true] } as const,
        attention,
      ),
    },
    "disentangledAttention": {
      ...cases(
        {
          lengths: [[1], [3, 1, 7, 2], [33, 1, 64, 65]],
          heads: [[2, 16]],
          positions: ["neither", "keys", "queries", "both"],
          magnitude: [1, 20],
          near: [4, 128],
        } as const,
        disentangledAttention,
      ),
      ...cases(
        {
          lengths: [[5, 40], [130]],
          heads: [[1, 1], [3, 5], [2, 64]],
          positions: ["both"],
          magnitude: [4],
          near: [16],
        } as const,
        disentangledAttention,
      ),
    },
    "cachedAttention": {
      ...cases(
        { rows: Object.keys(CACHED), heads: HEADS, magnitude: [1], dtype: ["f32", "f16"] } as const,
        cachedAttention,
      ),
      ...cases(
        {
          rows: Object.keys(CACHED),
          heads: [[3, 5], [1, 64]],
          magnitude: [1e4],
          dtype: ["f32", "f16"],
        } as const,
        cachedAttention,
      ),
    },
    "lowRank": cases(
      { size: [[1, 768, 30], [5, 7, 300], [8, 64, 66], [9, 33, 17], [3, 1, 1]], R: [1, 4, 9] } as const,
      (lab, { size: [T, K, N], R }) => {
        lab.backend.lowRank({
          ...{ x: lab.input([T, K]), A: lab.input([R, K]), B: lab.input([N, R]), scaling: 1.5 },
          ...{ h: lab.output([T, R], sumOf(K)), out: lab.updated([T, N], sumOf(K + R, R)) },
        });
      },
    ),
    "lowRankRows": cases(
      { size: [[1, 768, 30], [5, 7, 3], [17, 64, 66], [3, 1, 1]], R: [1, 4, 9] } as const,
      (lab, { size: [T, K, N], R }) => {
        const adapters = Array.from({ length: T }, (_, t) => t % 3 === 2 ? NO_ADAPTER : 3 - t % 4);
        lab.backend.lowRankRows({
          x: lab.input([T, K]),
          A: lab.input([4, R, K]),
          B: lab.input([4, R, N]),
          scaling: lab.input([4]),
          adapters: lab.indices(adapters),
          out: lab.updated([T, N], sumOf(K + R, R)),
        });
      },
    ),
    "crossEntropy": cases(
      {
        size: [[1, 1], [1, 2], [3, 5], [17, 211], [64, 257], [5, 1024], [2, 50_257]],
        magnitude: [3, 80, 1e4],
        gradientScale: [undefined, 1, 1 / 7],
      } as const,
      (lab, { size: [N, V], magnitude, gradientScale }) => {
        const content = lab.numbers(N * V, magnitude);
        const targets = Array.from({ length: N }, (_, n) => n === 0 ? V - 1 : n * 31 % V);
        // exp's argument is rounded at the size of the logits that count, near the largest.
        const relative = (32 + 2 * Math.sqrt(V) + 2 * Math.min(magnitude, 100)) * EPSILON;
        const logits = gradientScale === undefined
          ? lab.input([N, V], content)
          : lab.updated([N, V], { absolute: 4 * EPSILON * gradientScale, relative }, content);
        const loss = lab.output([N], { absolute: 4 * EPSILON * magnitude + relative, relative: 4 * EPSILON });
        lab.backend.crossEntropy({ logits, targets: lab.indices(targets), loss, gradientScale });
      },
    ),
    "sample": {
      ...cases(
        {
          size: [1, 3, 17].flatMap((N) => [1, 2, 3, 15, 16, 17, 300].map((V) => [N, V] as const)),
          kind: Object.keys(LOGITS),
          from: [0, 6],
          sets: [true],
        },
        sample,
      ),
      ...cases(
        { size: [[17, 33]] as const, kind: Object.keys(LOGITS), from: [0], sets: [false] },
        sample,
      ),
      ...cases(
        {
          size: [[2, 50_257]] as const,
          kind: ["as a model has them", "flat, around 0", "all equal"],
          from: [0, 3, 6, 9, 11],
          sets: [true],
        },
        sample,
      ),
    },
    "gather": cases(
      { C: [1, 3, 64, 65, 769], rows: [[0], [6], [5, 0, 5, 3]] } as const,
      (lab, { C, rows }) => {
        lab.backend.gather({
          x: lab.input([7, C]),
          rows: lab.indices(rows),
          out: lab.output([rows.length, C], exact),
        });
      },
    ),
    "scatterAdd": cases(
      { C: [1, 3, 64, 65, 769], rows: [[0], [6], [5, 0, 3]] } as const,
      (lab, { C, rows }) => {
        lab.backend.scatterAdd({
          dOut: lab.input([rows.length, C]),
          rows: lab.indices(rows),
          dX: lab.updated([7, C], sumOf(1)),
        });
      },
    ),
    "add": cases(
      { length: LENGTHS, into: ["another", "a", "b", "twice a"] } as const,
      (lab, { length, into }) => {
        const out = lab.output([length], sumOf(1));
        const a = into === "a" ? lab.updated([length], sumOf(1)) : lab.input([length]);
        const b = into === "b"
          ? lab.updated([length], sumOf(1))
          : into === "twice a"
          ? a
          : lab.input([length]);
        lab.backend.add({ a, b, out: into === "a" ? a : into === "b" ? b : out });
      },
    ),
    "copy": cases({ length: LENGTHS }, (lab, { length }) => {
      lab.backend.copy({ x: lab.input([length]), out: lab.output([length], exact) });
    }),
    "fill": cases({ length: LENGTHS, value: [0, -1.5, 0.1] }, (lab, { length, value }) => {
      lab.backend.fill({ out: lab.output([length], rounded), value });
    }),
    "dropout": cases(
      {
        length: LENGTHS,
        probability: [0, 0.1, 0.5, 0.9],
        key: [[0, 0], [0xdeadbeef, 0xffffffff]],
        into: ["another", "itself", "added to"],
      } as const,
      (lab, { length, probability, key, into }) => {
        const accumulate = into === "added to";
        const x = into === "itself" ? lab.updated([length], rounded) : lab.input([length]);
        const out = into === "itself"
          ? x
          : accumulate
          ? lab.updated([length], sumOf(1, 1 / (1 - probability)))
          : lab.output([length], rounded); // a dropped element is 0, and nothing but 0 is near it
        lab.backend.dropout({ x, out, probability, key, accumulate });
      },
    ),
    "sumRows": cases({ M: [1, 2, 33, 65, 1021], N: [1, 3, 64, 65, 769] } as const, (lab, { M, N }) => {
      lab.backend.sumRows({ x: lab.input([M, N]), out: lab.updated([N], sumOf(M)) });
    }),
    "sumOfSquares": cases({ length: LENGTHS, accumulate: [false, true] }, (lab, { length, accumulate }) => {
      // Squares do not cancel: the error is relative, and a kernel that adds in parts keeps it small.
      const tolerance = { absolute: 4 * EPSILON, relative: (16 + Math.sqrt(length)) * EPSILON };
      const out = accumulate ? lab.updated([1], tolerance) : lab.output([1], tolerance);
      lab.backend.sumOfSquares({ x: lab.input([length]), out, accumulate });
    }),
    "clipFactor": cases(
      { square: [0, 1e-12, 0.25, 4, 1e12], maxNorm: [0, 1, 1e-3] },
      (lab, { square, maxNorm }) => {
        const sumOfSquares = lab.input([1], Float32Array.of(square));
        lab.backend.clipFactor({ sumOfSquares, maxNorm, out: lab.output([2], rounded) });
      },
    ),
    "adamw": cases(
      { length: LENGTHS, step: [1, 2, 10_000], clip: [1, 0.3] },
      (lab, { length, step, clip }) => {
        // PyTorch computes 1 − β₂ in double precision; from an f32 β₂ it would be off by 1e-5.
        lab.backend.adamw({
          parameters: lab.updated([length], { absolute: 16 * EPSILON, relative: 4 * EPSILON }),
          gradients: lab.input([length]),
          m: lab.updated([length], sumOf(0, 0.1)),
          v: lab.updated([length], rounded, lab.numbers(length, 0.001, 0.002)),
          clip: lab.input([2], Float32Array.of(7, clip)),
          learningRate: 0.01,
          beta1: 0.9,
          beta2: 0.999,
          epsilon: 1e-8,
          weightDecay: 0.1,
          step,
        });
      },
    ),
  };
}
