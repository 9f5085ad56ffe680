/**
 * What is done of a study, part by part, so that one that was killed goes on where it was.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { ensureDirectory, explainFileError, join, writeAtomically } from "../format/files.ts";
import { parseJsonObject } from "../format/json.ts";
import { difference, removeCheckpoint } from "../train/checkpoint.ts";

/** Parts of a study that are recorded when they are done, or as they come. */
export type Part = "loss-base" | "answers-base" | "training" | "loss-tuned" | "answers-tuned" | "scores";

const PARTS: readonly Part[] = [
  ...["loss-base", "answers-base", "training", "loss-tuned", "answers-tuned", "scores"] as const,
];

/** The settings that all parts in a directory were made with; the first file to come, and the first to go. */
const SETTINGS = "settings.json";

/** Beside the report; what a fresh start takes away, so that nothing of the old study stands beside the new one. */
const OUTPUTS = ["report.html", "study.json", "metrics.jsonl", "loss.svg", "loss-means.svg", "scores.svg"];

/**
 * Finished parts: in a directory, each a file that is whole or absent, or in memory alone.
 *
 * A part is read back as it was written, to the last bit of its numbers, so that it does not matter
 * which process computed it.
 */
export class StudyRecord implements Disposable {
  readonly #memory = new Map<Part, string>();
  readonly #lock: Deno.FsFile | null;
  #resumed = false;

  private constructor(
    /** The study's directory; null in memory. */
    readonly out: string | null,
    lock: Deno.FsFile | null,
  ) {
    this.#lock = lock;
  }

  /** A record that nothing outlives. */
  static inMemory(): StudyRecord {
    return new StudyRecord(null, null);
  }

  /**
   * Opens a study's directory, or begins one there.
   *
   * @param out The directory; it is made.
   * @param settings All that decides what the parts hold; JSON.
   * @param overwrite Whether to begin anew whatever is there.
   * @returns The record; disposing lets another process have the directory.
   * @throws {WhetError} "mismatch" where another study's parts are, naming the setting that differs;
   * "resource" where another process works there, or nothing can be written.
   */
  static async open(
    out: string,
    settings: Record<string, unknown>,
    { overwrite = false }: { overwrite?: boolean } = {},
  ): Promise<StudyRecord> {
    const parts = join(out, "parts");
    await ensureDirectory(out); // First, so that an error names the directory that was given.
    await ensureDirectory(parts);
    const record = new StudyRecord(out, await lock(parts, out));
    try {
      const path = join(parts, SETTINGS);
      const now = JSON.parse(JSON.stringify(settings));
      const before = overwrite ? null : await readJson(path);
      const differs = before && difference(before, now);
      if (differs) {
        const [name, old, own] = differs;
        throw new WhetError(
          "mismatch",
          `${out} holds a study with ${name} ${JSON.stringify(old) ?? "not set"}, this one has ${
            JSON.stringify(own) ?? "it not set"
          }; use the same settings, or another --out, or --overwrite to begin anew`,
        );
      }
      record.#resumed = before !== null;
      if (!before) {
        // Parts without settings are of a fresh start that was killed: nobody knows whose they are.
        await remove(path);
        for (const part of PARTS) await remove(join(parts, `${part}.json`));
        await removeCheckpoint(join(parts, "checkpoint"));
        if (overwrite) { for (const name of OUTPUTS) await remove(join(out, name)); }
        await writeAtomically(path, `${JSON.stringify(now, null, 2)}\n`);
      }
      return record;
    } catch (error) {
      record[Symbol.dispose]();
      throw error;
    }
  }

  /** Whether the same study was begun there before. */
  get resumed(): boolean {
    return this.#resumed;
  }

  /** Where the training's checkpoint lies; null in memory. */
  get checkpoint(): string | null {
    return this.out === null ? null : join(this.out, "parts/checkpoint");
  }

  /** Where a part lies, for messages. */
  where(part: Part): string {
    return this.out === null ? part : join(this.out, `parts/${part}.json`);
  }

  /**
   * Reads a part.
   *
   * @param part Which.
   * @param fits Whether it has the fields that it must have.
   * @returns What was written; null where it is not there yet.
   * @throws {WhetError} "format" where its file was damaged.
   */
  async read<Value>(part: Part, fits: (value: Value) => boolean): Promise<Value | null> {
    if (this.out === null) {
      const text = this.#memory.get(part);
      return text === undefined ? null : JSON.parse(text);
    }
    const path = this.where(part);
    const value = await readJson(path) as Value | null;
    let sound = false;
    try {
      sound = value === null || fits(value);
    } catch {
      // A field of a field is missing.
    }
    if (!sound) throw new WhetError("format", `${path}: damaged; remove it to have that part done anew`);
    return value;
  }

  /** Writes a part, or replaces what there is of it. */
  async write<Value extends object>(part: Part, value: Value): Promise<void> {
    const text = JSON.stringify(value);
    if (this.out === null) this.#memory.set(part, text);
    else await writeAtomically(this.where(part), `${text}\n`);
  }

  /** Lets another process have the directory. */
  [Symbol.dispose](): void {
    this.#lock?.close();
  }
}

/** The system frees it when the process ends, however it ends. */
async function lock(parts: string, out: string): Promise<Deno.FsFile> {
  const path = join(parts, "lock");
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, { create: true, write: true });
  } catch (error) {
    throw explainFileError(error, "write", path);
  }
  try {
    if (await file.tryLock(true)) return file;
  } catch {
    return file; // Some network disks know no locks.
  }
  file.close();
  throw new WhetError(
    "resource",
    `${out}: another process is at work on the study there; wait for it, or use another --out`,
  );
}

async function readJson(path: string): Promise<Record<string, unknown> | null> {
  try {
    return parseJsonObject(await Deno.readTextFile(path), path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    if (error instanceof WhetError) {
      throw new WhetError("format", `${path}: damaged; remove it to have that part done anew`, {
        cause: error,
      });
    }
    throw explainFileError(error, "read", path);
  }
}

async function remove(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw explainFileError(error, "write", path);
  }
}
