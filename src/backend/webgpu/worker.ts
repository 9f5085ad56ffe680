/**
 * What runs in a worker: a backend that takes its calls from another thread. `deno task build` makes one file of it,
 * `worker.gen.ts`, without the WGSL sources, which come with the first message.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { WhetError } from "../../errors.ts";
import type { Backend } from "../../tensor/backend.ts";
import { type Matrix, PackedMatrix, Tensor } from "../../tensor/tensor.ts";
import { findAdapter, missingAdapter } from "./adapter.ts";
import { createWebGpuBackend } from "./backend.ts";
import type { GpuOptions } from "./gpu.ts";
import { WGSL } from "./kernels.gen.ts";
import type { Call, Failure, FromWorker, Numbers, Opened, Reference, ToWorker } from "./messages.ts";
import { endSoon, halt } from "./worker_end.ts";

const port = parentPort!;
const memories = new Map<number, Matrix>();
let backend: Backend; // once it is open
let state: Int32Array;
let fault: Failure | undefined;

port.on("message", (message: ToWorker) => {
  if ("calls" in message) return runAll(message.calls);
  if ("halt" in message) return halt(state);
  if ("close" in message) {
    backend?.[Symbol.dispose]();
    return endSoon(state);
  }
  state = message.state;
  Object.assign(WGSL, message.sources);
  open(message.open).then((opened) => tell({ opened }), (error) => tell({ failed: failureOf(error) }));
});

async function open(options: GpuOptions): Promise<Opened> {
  const adapter = await findAdapter();
  if (!adapter) throw new WhetError("backend", missingAdapter());
  backend = await createWebGpuBackend(adapter, options);
  const { description, readAhead } = backend;
  return { description, readAhead, largestBuffer: adapter.limits.maxBufferSize };
}

/** Calls take effect in their order; the first that fails is the last. */
function runAll(calls: readonly Call[]): void {
  let asked = false;
  for (const call of calls) {
    if (call.asks !== undefined) {
      asked = true;
      answer(call, call.asks);
      continue;
    }
    if (fault) continue;
    try {
      run(call);
    } catch (error) {
      tell({ failed: fault = failureOf(error) });
    }
  }
  if (!asked && !fault) tell({ stats: backend.stats() });
}

function run({ name, args, makes }: Call): unknown {
  if (name === "free") {
    const { memory } = args[0] as Reference;
    backend.free(memories.get(memory)!);
    return void memories.delete(memory);
  }
  const method = backend[name] as (...args: unknown[]) => unknown;
  const result = method.apply(backend, args.map(decode));
  if (makes !== undefined) memories.set(makes, result as Matrix);
  return result;
}

async function answer(call: Call, question: number): Promise<void> {
  try {
    if (fault) throw new WhetError(fault.code, fault.message);
    const value = await run(call);
    tell({ answers: question, value, stats: backend.stats() }, buffersOf(value));
  } catch (error) {
    tell({ answers: question, failure: failureOf(error), stats: backend.stats() });
  }
}

/** References and numbers, alone or in an object, become what they stand for. */
function decode(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  if ("memory" in value) return matrixOf(value as Reference);
  if ("numbers" in value) return arrayOf(value as Numbers);
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, decode(part)]));
}

function matrixOf({ memory, view }: Reference): Matrix {
  const whole = memories.get(memory);
  if (!whole) throw new WhetError("backend", "a tensor or packed weight was used after it was freed");
  if (!view || whole instanceof PackedMatrix) return whole;
  return new Tensor(view.shape, view.dtype, whole.memory, whole.offset + view.offset);
}

function arrayOf({ numbers, buffer }: Numbers): Float32Array | Uint32Array | Uint8Array {
  return new { f32: Float32Array, u32: Uint32Array, u8: Uint8Array }[numbers](buffer);
}

/** What of an answer need not be copied. */
function buffersOf(value: unknown): ArrayBuffer[] {
  if (ArrayBuffer.isView(value)) return [value.buffer as ArrayBuffer];
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(buffersOf) : [];
}

function failureOf(error: unknown): Failure {
  if (error instanceof WhetError) return { code: error.code, message: error.message };
  const message = error instanceof Error ? error.message : String(error);
  return { code: "backend", message: `the GPU's worker failed: ${message.replace(/\s+/g, " ")}` };
}

function tell(message: FromWorker, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}
