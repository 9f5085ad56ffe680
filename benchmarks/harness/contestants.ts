/**
 * The ways in which contestants are started.
 *
 * @module
 */
import { installLlamaCpp } from "./install.ts";
import { Peer, type ProcessOptions } from "./process.ts";
import type { Job } from "./serve.ts";
import type { Sample } from "./statistics.ts";
import { Absent, type Context, type Entrant } from "./work.ts";

/** What a peer is asked to do; the threads are the context's if it does not say. */
export type JobOf = Omit<Job, "threads"> & { threads?: number };

/** A program of `benchmarks/peers/` with packages from npm that this project's lock file does not have. */
const FOREIGN = ["run", "-A", "--quiet", "--no-config", "--no-lock"];

/** Whet itself. */
export function whet(context: Context, job: JobOf): Promise<Answering> {
  const args = ["run", "-A", "--quiet", peer("whet.ts")];
  return Answering.open({ command: Deno.execPath(), args }, context, job);
}

/** A peer from npm. */
export function npm(context: Context, file: string, job: JobOf): Promise<Answering> {
  const args = [...FOREIGN, "--node-modules-dir=none", peer(file)];
  return Answering.open({ command: Deno.execPath(), args }, context, job);
}

/** llama.cpp. */
export async function llamaCpp(context: Context, job: JobOf): Promise<Answering> {
  const folder = await installLlamaCpp(console.error);
  const args = [...FOREIGN, "--node-modules-dir=manual", peer("llama_cpp.ts"), folder];
  return await Answering.open({ command: Deno.execPath(), args }, context, job);
}

/** PyTorch, with transformers and PEFT. */
export function pytorch(context: Context, job: JobOf): Promise<Answering> {
  const args = [new URL(peer("pytorch.py")).pathname];
  return Answering.open({ command: python(context), args, env: PYTHON_ENV }, context, job);
}

/** The Python that was named. */
export function python(context: Context): string {
  if (context.python) return context.python;
  throw new Absent("no Python was named: --python or WHET_PYTHON");
}

/** Files only, and no bars on standard error. */
export const PYTHON_ENV = { HF_HUB_OFFLINE: "1", HF_HUB_DISABLE_PROGRESS_BARS: "1" };

/** The address of a program in `benchmarks/peers/`. */
export function peer(file: string): string {
  return new URL(`../peers/${file}`, import.meta.url).href;
}

/** A process that was opened for a job. */
export class Answering implements Entrant {
  private constructor(private readonly process: Peer, readonly version?: string) {}

  /** Starts it and makes the job ready. */
  static async open(options: ProcessOptions, context: Context, job: JobOf): Promise<Answering> {
    const process = new Peer(options);
    try {
      const version = await process.ask<string>({ do: "open", threads: context.threads, ...job });
      return new Answering(process, version);
    } catch (error) {
      await process[Symbol.asyncDispose]();
      throw error;
    }
  }

  run(): Promise<Sample> {
    return this.process.ask({ do: "run" });
  }

  check(question: Record<string, unknown>): Promise<unknown> {
    return this.process.ask({ do: "check", ...question });
  }

  /** The most memory that it has had, in bytes. */
  peakMemory(): Promise<number> {
    return this.process.peakMemory();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.process[Symbol.asyncDispose]();
  }
}

/**
 * Each run is a process of its own, of which the peak memory is taken.
 *
 * @param prepare Makes the files that it takes, before the first run.
 * @param open Starts it.
 * @param times How often its job is run.
 */
export async function peakAnew(
  context: Context,
  prepare: () => Promise<unknown>,
  open: (context: Context) => Promise<Answering>,
  times: number,
): Promise<Entrant> {
  await prepare();
  let version: string | undefined;
  return {
    get version() {
      return version;
    },
    async run() {
      await using process = await open(context);
      version = process.version;
      for (let i = 0; i < times; i++) await process.run();
      return { amount: await process.peakMemory() / 1e6, seconds: 1 };
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
