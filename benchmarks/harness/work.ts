/**
 * What is measured: a work is a row or a few of the table, its contestants do the same thing.
 *
 * @module
 */
import type { Files } from "./files.ts";
import type { Sample } from "./statistics.ts";

/** What the whole bench has in common. */
export interface Context {
  /** Threads that everyone computes with who can have several. */
  threads: number;
  /** Runs of each contestant. */
  runs: number;
  /** Small models and few tokens, to see that the bench works. */
  quick: boolean;
  /** A Python with torch, transformers and peft, if there is one. */
  python: string | null;
  /** Milliseconds between two runs [250]. */
  pause?: number;
  /** Models and data, made when they are asked for. */
  files: Files;
}

/** A contestant, ready to be run. */
export interface Entrant extends AsyncDisposable {
  /** What the table calls its version. */
  version?: string;
  /** Runs once. */
  run(): Promise<Sample>;
  /** Something by which it can be seen that it does what others do. */
  check?(question: Record<string, unknown>): Promise<unknown>;
}

/** Who does a work. */
export interface Contestant {
  /** Its name, as in the table: `Whet q8`. */
  name: string;
  /** Makes it ready: installs, starts, loads. */
  open(context: Context): Promise<Entrant>;
}

/** One of Whet's against one of the others. */
export interface Comparison {
  /** Whet's. */
  whet: string;
  /** The other; none where the target is a figure of its own. */
  beside?: string;
  /** The target: of the ratio, or of the figure itself if there is no other. */
  target?: number;
}

/** Something to do. */
export interface Work {
  /** Its name on the command line. */
  name: string;
  /** What is done, as in the table. */
  title: string;
  /** What the figure is. */
  unit: string;
  /** Whether more of it is better, or less. */
  better: "more" | "less";
  /** How ratios are taken: Whet's figure over the other's, or the other's over Whet's [as more is better]. */
  ratio?: "whet/other" | "other/whet";
  /** What several runs come to [`"median"`]. */
  statistic?: "median" | "whole";
  /** Runs that do not count, before those that do [1]. */
  warmups?: number;
  /** Who does it, in order. */
  contestants: readonly Contestant[];
  /** Which are compared. */
  comparisons: readonly Comparison[];
  /** What {@linkcode Entrant.check} is asked. */
  question?: Record<string, unknown>;
  /**
   * Judges a contestant's answer, after its runs.
   *
   * @param name Whose answer.
   * @param answer It.
   * @param reference That of the work's first contestant; undefined if it was not run.
   * @returns What is wrong with it, or null.
   */
  judge?(name: string, answer: unknown, reference: unknown): string | null;
}

/** A contestant that cannot be had here, for a reason that is nobody's fault. */
export class Absent extends Error {}
