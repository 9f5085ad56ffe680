/**
 * A short trial of the products' kernels on a device: one fixed tile loses a fifth against each card's best on average
 * and more than half on the worst (llama.cpp#22241). What it finds is remembered for all devices of an adapter, also
 * those of later processes where `remembered.ts` can keep it: so they need not try, and compute by the same kernels.
 *
 * @module
 */
import type { Tensor } from "../../tensor/tensor.ts";
import { isSoftware } from "./adapter.ts";
import type { Gpu } from "./gpu.ts";
import { WGSL } from "./kernels.gen.ts";
import { matmul } from "./matmul.ts";
import { chooseProducts, type MatmulShapes, type ProductOptions, UNMEASURED } from "./matmul_shapes.ts";
import { allocate } from "./memory.ts";
import { keep, recall } from "./remembered.ts";
import { slice } from "./slices.ts";
import { free } from "./weights.ts";

/** Milliseconds after which no other kernel is tried. */
const BUDGET = 250;
/** How often each is timed, where the device has a clock; the fastest counts. */
const ROUNDS = 2;
/** Milliseconds that must pass to be told apart from Deno's 10 ms of sleep in an awaited map. */
const LONG = 40;

/** One question to the device. */
export interface Trial {
  /** Sizes of the product. */
  readonly size: readonly [M: number, N: number, K: number];
  /** How many matrices b take turns, so that the cache does not hold all of them. */
  readonly matrices: number;
  /** Answers to choose from. */
  readonly candidates: readonly Partial<MatmulShapes>[];
  /** Turns a candidate into one that the product is sure to be made by. */
  readonly force?: (candidate: Partial<MatmulShapes>) => Partial<MatmulShapes>;
}

/** What is asked, the most important first. */
export const TRIALS: readonly Trial[] = [
  {
    size: [1024, 3072, 384],
    matrices: 1,
    candidates: [{ medium: "64x64" }, { medium: "64x64x8" }, { medium: "128x64" }, { medium: "32x64" }],
    force: ({ medium }) => ({ tile: medium, splits: 1 }),
  },
  {
    size: [2048, 2048, 256],
    matrices: 1,
    candidates: [{ large: "128x128" }, { large: "128x64" }, { large: "64x64x8" }],
    force: ({ large }) => ({ tile: large, splits: 1 }),
  },
  {
    size: [1, 768, 3072],
    matrices: 4,
    candidates: [{ vectorBytes: 64 }, { vectorBytes: 32 }, { vectorBytes: 128 }],
  },
  {
    size: [128, 768, 3072],
    matrices: 1,
    candidates: (["32x64", "64x64"] as const).flatMap((small) =>
      [256, 128, 512].map((workgroups) => ({ small, workgroups }))
    ),
    force: ({ small, workgroups }) => ({ tile: small, workgroups }),
  },
];

/** What a trial found. */
export interface Found {
  /** What was fastest; the usual where nothing was tried. */
  readonly shapes: MatmulShapes;
  /** Whether there was time for all of it. */
  readonly whole: boolean;
}

/** By adapter and arithmetic. */
const remembered = new Map<string, Promise<MatmulShapes>>();

/**
 * Sets how products are made on a new device: as `options` say, else by what a trial found on its adapter.
 *
 * @param gpu Nothing is under way on it.
 * @param trials What is asked where nothing is known.
 * @param budget Milliseconds after which no other kernel is tried.
 */
export async function settleProducts(
  gpu: Gpu,
  options: ProductOptions,
  trials = TRIALS,
  budget = BUDGET,
): Promise<void> {
  if (options.tile || options.shapes) return;
  const { adapterInfo: info } = gpu.device;
  if (!info || isSoftware({ info })) return;
  const name = await nameOf(info, options);
  let found = remembered.get(name);
  if (!found) {
    found = findShapes(gpu, name, trials, budget);
    remembered.set(name, found);
    found.catch(() => remembered.delete(name)); // the next device may do better
  }
  gpu.products = chooseProducts(options, gpu.features.f16, await found);
}

/** What a trial's outcome depends on: the adapter, the arithmetic, and what compiles which kernels. */
export async function nameOf(info: GPUAdapterInfo, { arithmetic = "f32" }: ProductOptions): Promise<string> {
  const kernels = new TextEncoder().encode(JSON.stringify(WGSL));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", kernels)).toHex().slice(0, 8);
  const { vendor, architecture, device, description } = info;
  const adapter = [vendor, architecture, device, description].filter(Boolean);
  return ["products", digest, navigator.userAgent, arithmetic, ...adapter].join(" ");
}

/** What was kept, else what a trial finds, which is kept if nothing was left out. */
async function findShapes(
  gpu: Gpu,
  name: string,
  trials: readonly Trial[],
  budget: number,
): Promise<MatmulShapes> {
  const kept = knownShapes(await recall(name));
  if (kept) return kept;
  const { shapes, whole } = await tryShapes(gpu, trials, budget);
  if (whole) await keep(name, shapes);
  return shapes;
}

/** Shapes as a file holds them; undefined if no trial could have found them. */
function knownShapes(kept: unknown): MatmulShapes | undefined {
  const given = Object(kept) as MatmulShapes;
  const possible = [UNMEASURED, ...TRIALS.flatMap(({ candidates }) => candidates)];
  const names = Object.keys(UNMEASURED) as (keyof MatmulShapes)[];
  const known = names.every((name) => possible.some((one) => name in one && one[name] === given[name]));
  return known ? Object.fromEntries(names.map((name) => [name, given[name]])) as never : undefined;
}

/**
 * Tries kernels out.
 *
 * @param trials What is asked.
 * @param budget Milliseconds after which no other kernel is tried; a question left out has its usual answer.
 */
export async function tryShapes(gpu: Gpu, trials = TRIALS, budget = BUDGET): Promise<Found> {
  const { products } = gpu;
  const end = performance.now() + budget;
  let shapes = UNMEASURED;
  let whole = true;
  try {
    for (const trial of trials) {
      if (performance.now() > end) return { shapes, whole: false };
      const tensors = operands(gpu, trial.size, trial.matrices);
      try {
        const works = trial.candidates.map((candidate) => () => {
          gpu.products = { ...products, shapes: { ...shapes, ...candidate, ...trial.force?.(candidate) } };
          for (const b of tensors.bs) matmul(gpu, { a: tensors.a, b, out: tensors.out });
        });
        const measure = gpu.features.timestamps ? byTimestamps : byWaiting;
        const times = await measure(gpu, works, tensors.out, end);
        const best = times.indexOf(Math.min(...times));
        if (times[best] > 0) shapes = { ...shapes, ...trial.candidates[best] };
        whole &&= times.every((time) => time > 0 && time < Infinity);
      } finally {
        for (const tensor of [tensors.a, tensors.out, ...tensors.bs]) free(gpu, tensor);
      }
    }
  } finally {
    gpu.products = products;
  }
  return { shapes, whole };
}

function operands(
  gpu: Gpu,
  [M, N, K]: Trial["size"],
  matrices: number,
): { a: Tensor; bs: Tensor[]; out: Tensor } {
  const bs = Array.from({ length: matrices }, () => allocate(gpu, [K, N]));
  return { a: allocate(gpu, [M, K]), bs, out: allocate(gpu, [M, N]) };
}

/** Nanoseconds of each work on the device's clock: of those there was time to try, others come last. */
async function byTimestamps(gpu: Gpu, works: (() => void)[], out: Tensor, end: number): Promise<number[]> {
  const { device } = gpu;
  // The first run compiles.
  const tried = works.filter((work, i) => {
    if (i > 0 && performance.now() > end) return false;
    work();
    return true;
  });
  gpu.flush();
  const count = 2 * ROUNDS * tried.length;
  const set = device.createQuerySet({ type: "timestamp", count });
  const usage = GPUBufferUsage;
  const resolved = device.createBuffer({ size: 8 * count, usage: usage.QUERY_RESOLVE | usage.COPY_SRC });
  const reader = device.createBuffer({ size: 8 * count, usage: usage.MAP_READ | usage.COPY_DST });
  try {
    // A mark is an empty pass of its own, ahead of and behind the submission that it times.
    const mark = (index: number) => {
      const encoder = device.createCommandEncoder();
      const timestampWrites = { querySet: set, beginningOfPassWriteIndex: index };
      encoder.beginComputePass({ timestampWrites }).end();
      device.queue.submit([encoder.finish()]);
    };
    for (let i = 0; i < count; i += 2) {
      mark(i);
      tried[i / 2 % tried.length]();
      gpu.flush();
      mark(i + 1);
    }
    const encoder = device.createCommandEncoder();
    encoder.resolveQuerySet(set, 0, count, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, reader, 0, 8 * count);
    device.queue.submit([encoder.finish()]);
    // Waiting for both at once costs Deno's 10 ms once; the first throws what went wrong.
    await Promise.all([gpu.read(slice(out, 0, 1)), reader.mapAsync(GPUMapMode.READ)]);
    const stamps = new BigUint64Array(reader.getMappedRange());
    const times: number[] = Array(works.length).fill(Infinity);
    for (let i = 0; i < count; i += 2) {
      const work = i / 2 % tried.length;
      times[work] = Math.min(times[work], Number(stamps[i + 1] - stamps[i]));
    }
    return times;
  } finally {
    set.destroy();
    resolved.destroy();
    reader.destroy();
  }
}

/** Milliseconds of each work, by how long it is to wait for many; of those there was time to try, others come last. */
async function byWaiting(gpu: Gpu, works: (() => void)[], out: Tensor, end: number): Promise<number[]> {
  const times: number[] = [];
  for (const work of works) {
    if (performance.now() > end) break;
    work();
    await gpu.read(slice(out, 0, 1));
    for (let repeats = 1;; repeats *= 4) {
      const start = performance.now();
      for (let i = 0; i < repeats; i++) work();
      await gpu.read(slice(out, 0, 1));
      const elapsed = performance.now() - start;
      times[times.length - (repeats > 1 ? 1 : 0)] = elapsed / repeats;
      if (elapsed > LONG || performance.now() > end) break;
    }
  }
  // One alone has been compared with nothing.
  return times.length > 1
    ? [...times, ...Array(works.length - times.length).fill(Infinity)]
    : works.map(() => Infinity);
}
