/**
 * The f32 matrix product of GPT-2's first MLP layer for 1024 tokens. B is a weight: whoever can pack it ahead does.
 *
 * @module
 */
import { npm, whet } from "../harness/contestants.ts";
import { MATMUL, numbers } from "../harness/inputs.ts";
import type { Comparison, Contestant, Context, Work } from "../harness/work.ts";

/** Elements of the product that are compared with the exact ones. */
const PLACES = Array.from({ length: 64 }, (_, i) => i * 49157 % (MATMUL.M * MATMUL.N));
/** A sum of 768 products of numbers below 1 has an error of about 1e-5 in f32. */
const TOLERANCE = 1e-3;

/** The product on several threads. */
export function matmul({ threads }: Context): Work {
  return product("matmul", threads, {
    "jax-js": ["jax.ts"],
    "jax-js, B transposed": ["jax.ts", { transposed: true }],
    "onnxruntime-web": ["onnxruntime_web.ts"],
    "onnxruntime-node (native)": ["onnxruntime_node.ts"],
  }, [
    { whet: "Whet f32", beside: "jax-js", target: 1.6 },
    { whet: "Whet f32", beside: "jax-js, B transposed", target: 1.6 },
    { whet: "Whet f32", beside: "onnxruntime-web", target: 1.6 },
    { whet: "Whet f32", beside: "onnxruntime-node (native)" },
  ]);
}

/** The product on one thread. */
export function matmulSingle(): Work {
  return product("matmul-1", 1, { "tfjs-wasm": ["tfjs.ts"] }, [
    { whet: "Whet f32", beside: "tfjs-wasm", target: 1.25 },
  ]);
}

function product(
  name: string,
  threads: number,
  peers: Record<string, [file: string, settings?: Record<string, unknown>]>,
  comparisons: readonly Comparison[],
): Work {
  const { M, K, N } = MATMUL;
  const job = { job: "matmul", threads };
  let exact: number[] | null = null;
  return {
    name,
    title: `f32 matmul ${M} × ${K} × ${N}, ${threads} ${threads > 1 ? "threads" : "thread"}`,
    unit: "GFLOP/s",
    better: "more",
    contestants: [
      { name: "Whet f32", open: (context) => whet(context, job) },
      ...Object.entries(peers).map(([name, [file, settings]]): Contestant => (
        { name, open: (context) => npm(context, file, { ...job, ...settings }) }
      )),
    ],
    comparisons,
    question: { places: PLACES },
    judge(_, answer) {
      exact ??= exactProduct();
      const error = Math.max(...(answer as number[]).map((value, i) => Math.abs(value - exact![i])));
      return error < TOLERANCE ? null : `its product is off by ${error}`;
    },
  };
}

/** The elements at PLACES, in f64. */
function exactProduct(): number[] {
  const { M, K, N } = MATMUL;
  const [a, b] = [numbers(M * K, 1), numbers(K * N, 2)];
  return PLACES.map((place) => {
    const row = Math.floor(place / N), column = place % N;
    let sum = 0;
    for (let k = 0; k < K; k++) sum += a[row * K + k] * b[k * N + column];
    return sum;
  });
}
