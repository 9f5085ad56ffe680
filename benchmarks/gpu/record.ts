/**
 * What the bench writes: rows, as a table and as JSON.
 *
 * @module
 */
import type { Products } from "../../src/backend/webgpu/matmul_shapes.ts";
import { summarise } from "../harness/statistics.ts";

/** What a figure is a share of. */
export type Ceiling = "fp32" | "bandwidth";

/** What the backend did for one step, token or call, and what it holds. */
export interface Counters {
  /** Kernel launches. */
  dispatches: number;
  /** Submissions. */
  submissions: number;
  /** Bind groups, buffers and pipelines made. */
  creations: number;
  /** Reads of results. */
  readbacks: number;
  /** MB in use while it ran. */
  megabytes: number;
  /** Milliseconds that a timer came late at most, in a run that was not measured. */
  stall?: number;
}

/** One row: what was measured, or why it was not. */
export interface Row {
  /** What kind of thing it is. */
  group: string;
  /** What it is, with its sizes. */
  name: string;
  /** GFLOP/s, GB/s or tokens/s; with more of it being better. */
  unit: string;
  /** The median. */
  value?: number;
  /** The least of the samples. */
  low?: number;
  /** The greatest. */
  high?: number;
  /** Samples. */
  runs?: number;
  /** Milliseconds of a call, a step or a token, the median. */
  milliseconds?: number;
  /** The figure over the card's own, 0 … 1; more than 1 where caches hold everything. */
  share?: number;
  /** What the share is of. */
  of?: Ceiling;
  /** What the backend did. */
  counters?: Counters;
  /** Why there is no figure. */
  absent?: string;
}

/** All of a run. */
export interface GpuRecord {
  /** Whose figures these are. */
  program: string;
  /** ISO date. */
  date: string;
  /** The adapter: its words, features, limits. */
  adapter: { description: string; software: boolean; features: string[]; limits: Record<string, number> };
  /** Runtime and system. */
  system: string;
  /** Whether the GPU was in a worker. */
  worker?: boolean;
  /** In what numbers products of many rows were computed. */
  arithmetic?: string;
  /** False where kernels were told not to use subgroups. */
  subgroups?: boolean;
  /** Which kernels make products, as a trial at the start found. */
  products?: Products;
  /** Whether sizes were tiny, so that figures mean nothing. */
  quick: boolean;
  /** Milliseconds that waiting for nothing takes. */
  idleMilliseconds?: number;
  /** The card's own: GFLOP/s in registers, GB/s. */
  ceilings: Partial<Record<Ceiling, number>>;
  /** The rows, in the order of the run. */
  rows: Row[];
}

/**
 * A row out of samples.
 *
 * @param row What it is.
 * @param amount GFLOP, GB or tokens of one call.
 * @param seconds Seconds of a call, for each sample.
 * @param ceilings The card's own, as far as it is known.
 */
export function measured(
  row: Row,
  amount: number,
  seconds: readonly number[],
  ceilings: GpuRecord["ceilings"] = {},
): Row {
  const { value, low, high } = summarise(seconds.map((seconds) => ({ amount, seconds })), "median");
  const ceiling = row.of && ceilings[row.of];
  return {
    ...row,
    ...{ value, low, high, runs: seconds.length, milliseconds: 1000 * amount / value },
    ...(ceiling ? { share: value / ceiling } : {}),
  };
}

const HEAD = [
  "what",
  "figure",
  "min – max",
  "share",
  "ms",
  "dispatches, submissions, creations, reads; MB; stall (ms)",
];
const WIDTHS = [62, 17, 19, 6, 9];

/** The table's first line. */
export function heading(): string {
  return line(HEAD);
}

/** A row of the table. */
export function rowLine(row: Row): string {
  const what = `${row.group}: ${row.name}`;
  if (row.value === undefined) return line([what, "–", row.absent ?? ""]);
  const { dispatches, submissions, creations, readbacks, megabytes, stall } = row.counters ?? {};
  const counters = [
    [dispatches, submissions, creations, readbacks].map((count) => digits(count ?? 0)).join(", "),
    ...[megabytes, stall].filter((count) => count !== undefined).map(digits),
  ].join("; ");
  return line([
    what,
    `${digits(row.value)} ${row.unit}`,
    `${digits(row.low!)} – ${digits(row.high!)}`,
    row.share === undefined ? "" : `${(100 * row.share).toFixed(0)} %`,
    digits(row.milliseconds!),
    row.counters ? counters : "",
  ]);
}

/** Three digits that count. */
export function digits(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return decimals > 5 ? value.toExponential(2) : String(Number(value.toFixed(decimals)));
}

function line(cells: readonly string[]): string {
  return cells.map((cell, i) => cell.padEnd(WIDTHS[i] ?? 0)).join(" | ").trimEnd();
}
