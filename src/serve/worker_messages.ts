/**
 * What the main thread and the worker that serves say to each other.
 *
 * @module
 */
import type { ErrorCode } from "../errors.ts";
import type { Progress } from "../format/repository.ts";
import type { HandlerOptions } from "./handler.ts";

/** What a server is told before it starts: {@linkcode HandlerOptions} that can be sent to a worker. */
export interface ServerOptions
  extends Omit<HandlerOptions, "model" | "reward" | "log" | "onProgress" | "onNote"> {
  /** The base model: a directory, URL, Hub id or `"nano"`. */
  model: string;
  /** A reward model for `/v1/score`: a directory, URL or Hub id [none]. */
  rewardModel?: string;
}

/** What a server tells when its model is loaded. */
export interface Ready {
  /** The base model's name in requests. */
  name: string;
  /** The model, for people. */
  description: string;
}

/** An error on its way between threads, which keep neither class nor code. */
export interface SentError {
  /** {@linkcode WhetError}'s code, if it is one. */
  code: ErrorCode | null;
  /** The error's class. */
  name: string;
  /** What it says. */
  message: string;
  /** Where it was thrown. */
  stack?: string;
}

/** What the main thread says; `id` is the request's. */
export type ToWorker =
  | { kind: "start"; options: ServerOptions }
  | {
    kind: "request";
    id: number;
    method: string;
    url: string;
    headers: [string, string][];
    hasBody: boolean;
  }
  /** The request's body, or as much of it as shows that it is too long; null where the client failed to send it. */
  | { kind: "body"; id: number; bytes: Uint8Array<ArrayBuffer> | null }
  /** The client has taken so many chunks of the response; so many more may come. */
  | { kind: "credit"; id: number; chunks: number }
  /** The client went away. */
  | { kind: "cancel"; id: number }
  | { kind: "shutdown"; seconds: number };

/** What the worker says. */
export type FromWorker =
  /** Its code is loaded. */
  | { kind: "alive" }
  | { kind: "progress"; progress: Progress }
  | { kind: "note"; text: string }
  | { kind: "ready"; ready: Ready }
  | { kind: "failed"; error: SentError }
  | { kind: "wants body"; id: number }
  | { kind: "head"; id: number; status: number; headers: [string, string][]; hasBody: boolean }
  | { kind: "chunk"; id: number; bytes: Uint8Array<ArrayBuffer> }
  | { kind: "end"; id: number }
  | { kind: "broken"; id: number }
  /** All is freed after a shutdown. */
  | { kind: "down" };

/** Chunks of a response that may be on their way, or wait for a slow client. */
export const CREDIT = 16;
