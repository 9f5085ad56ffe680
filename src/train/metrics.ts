/**
 * metrics.jsonl: a line of JSON for every step.
 *
 * @module
 */
import { explainFileError, writeAtomically } from "../format/files.ts";
import type { TrainStep } from "./trainer.ts";

/** A step, as its line has it. */
export interface MetricsLine {
  /** The step, from 1. */
  step: number;
  /** Mean cross-entropy, in nats. */
  loss: number;
  /** The step's learning rate. */
  learning_rate: number;
  /** Norm of the gradients before clipping. */
  grad_norm: number;
  /** Tokens that went through the network. */
  tokens: number;
  /** Those per second. */
  tokens_per_second: number;
  /** Loss of the held-out data, where it was evaluated. */
  eval_loss?: number;
  /** Seconds since the step before, evaluations included, where they were measured. */
  seconds?: number;
}

/** The steps so far, on disk and in memory. */
export class Metrics implements Disposable {
  /** The steps of the whole run, interruptions and all. */
  readonly lines: MetricsLine[];
  readonly #path: string | null;
  #file: Deno.FsFile | null = null;

  private constructor(path: string | null, lines: MetricsLine[]) {
    this.#path = path;
    this.lines = lines;
  }

  /**
   * Opens the file of a run.
   *
   * @param path The file; null keeps the steps in memory alone.
   * @param resume Whether steps of the run before it was interrupted are to be kept.
   */
  static async open(path: string | null, resume: boolean): Promise<Metrics> {
    return new Metrics(path, resume && path !== null ? parseLines(await readIfThere(path)) : []);
  }

  /**
   * Notes a step down; what an earlier attempt wrote from there on goes.
   *
   * @param step The step.
   * @param lasting Whether to wait until it is on the disk: a checkpoint that follows must find it there,
   * also when the power fails.
   * @param seconds How long it took since the step before, where that is to be noted too.
   */
  async add(step: TrainStep, lasting = false, seconds?: number): Promise<void> {
    const line: MetricsLine = {
      step: step.step,
      loss: step.loss,
      learning_rate: step.learningRate,
      grad_norm: step.gradNorm,
      tokens: step.tokens,
      tokens_per_second: Math.round(step.tokensPerSecond * 10) / 10,
      ...(step.evalLoss === undefined ? {} : { eval_loss: step.evalLoss }),
      ...(seconds === undefined ? {} : { seconds: Math.round(seconds * 1e6) / 1e6 }),
    };
    if (this.#path === null) {
      this.lines.push(line);
      return;
    }
    if (!this.#file) {
      const kept = this.lines.filter(({ step }) => step < line.step);
      this.lines.splice(0, this.lines.length, ...kept);
      await writeAtomically(this.#path, kept.map((line) => `${JSON.stringify(line)}\n`).join(""));
    }
    this.lines.push(line);
    try {
      this.#file ??= await Deno.open(this.#path, { append: true });
      const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
      for (let at = 0; at < bytes.length;) at += this.#file.writeSync(bytes.subarray(at));
      if (lasting) await this.#file.syncData();
    } catch (error) {
      throw explainFileError(error, "write", this.#path);
    }
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file?.close();
    this.#file = null;
  }
}

/** A file's text, empty where there is none. */
async function readIfThere(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw explainFileError(error, "read", path);
  }
}

/** The whole lines of a file whose writer may have been killed in the midst of one. */
function parseLines(text: string): MetricsLine[] {
  const lines: MetricsLine[] = [];
  for (const line of text.split("\n")) {
    try {
      const parsed = JSON.parse(line);
      if (Number.isSafeInteger(parsed.step)) lines.push(parsed);
    } catch {
      // Half a line, or the end.
    }
  }
  return lines;
}
