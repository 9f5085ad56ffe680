/**
 * What goes between a thread and the worker that its GPU lives in. Tensors and weights go by the number of their
 * memory, numbers and flags as they are.
 *
 * @module
 */
import type { ErrorCode } from "../../errors.ts";
import type { Backend, BackendStats } from "../../tensor/backend.ts";
import type { DType } from "../../tensor/tensor.ts";
import type { GpuOptions } from "./gpu.ts";

/** A tensor, or a packed weight, which the worker knows all of. */
export interface Reference {
  /** The number of its memory. */
  memory: number;
  /** A tensor's own. */
  view?: { shape: readonly number[]; dtype: DType; offset: number };
}

/**
 * Numbers on their way to the worker. Not as the array that they are: Deno 2.9.6 looks at every property of what comes
 * to such a worker, each number of an array too (100 MB took 5.8 s and 1.3 GB, as a buffer 2 ms, measured). To be
 * deleted when it does not.
 */
export interface Numbers {
  /** What they are. */
  numbers: "f32" | "u32" | "u8";
  /** All of them. */
  buffer: ArrayBuffer;
}

/** A backend's method. */
export type Method = Exclude<keyof Backend, symbol>;

/** A call of a backend's method. */
export interface Call {
  /** The method; `free` frees what `args` refers to. */
  name: Method;
  /** Its arguments; {@linkcode Reference}s and {@linkcode Numbers} among them, alone or in objects. */
  args: unknown[];
  /** What it makes is known by this number. */
  makes?: number;
  /** What it resolves to is the answer to the question of this number. */
  asks?: number;
}

/** To the worker. */
export type ToWorker =
  /** Opens its backend; the first message. */
  | { open: GpuOptions; sources: Record<string, string>; state: Int32Array }
  /** Calls, in their order. */
  | { calls: Call[] }
  /** Disposes the backend; the worker ends by itself. */
  | { close: true }
  /** The process ends: nothing is to be done any more. */
  | { halt: true };

/** An error on its way. */
export interface Failure {
  /** A {@linkcode WhetError}'s code. */
  code: ErrorCode;
  /** Its message. */
  message: string;
}

/** What an open backend says of itself. */
export interface Opened {
  /** The adapter in words. */
  description: string;
  /** Steps of decoding under way at once. */
  readAhead?: number;
  /** Bytes of a buffer at most. */
  largestBuffer: number;
}

/** From the worker. */
export type FromWorker =
  /** Its backend is open. */
  | { opened: Opened }
  /** It is not, or a call failed: from now on nothing is computed. */
  | { failed: Failure }
  /** The answer to a question. */
  | { answers: number; value?: unknown; failure?: Failure; stats: BackendStats }
  /** What was done by calls without a question. */
  | { stats: BackendStats };
