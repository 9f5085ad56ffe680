/**
 * The table, and the page it stands in.
 *
 * @module
 */
import type { Machine } from "./machine.ts";
import type { Result } from "./measure.ts";
import type { Comparison } from "./work.ts";

/** What came out for a work. */
export interface WorkRecord {
  /** Its name on the command line. */
  name: string;
  /** What was done. */
  title: string;
  /** What figures are. */
  unit: string;
  /** Whether more is better. */
  better: "more" | "less";
  /** How ratios are taken. */
  ratio: "whet/other" | "other/whet";
  /** What several runs come to. */
  statistic: "median" | "whole";
  /** How many there were. */
  runs: number;
  /** Threads. */
  threads: number;
  /** Whether it was small, only to see that the bench works. */
  quick: boolean;
  /** The day. */
  date: string;
  /** The contestants'. */
  results: (Result & { earlier?: boolean })[];
  /** Which are compared. */
  comparisons: readonly Comparison[];
}

/** What the JSON file holds. */
export interface BenchRecord {
  /** Where it was measured. */
  machine: Machine;
  /** What came out. */
  works: WorkRecord[];
}

const HEAD = ["work", "Whet", "figure", "min – max", "beside", "figure", "min – max", "ratio", "target"];
const BEGIN = "<!-- bench: written by `deno task bench`; edits are lost -->";
const END = "<!-- /bench -->";

/**
 * Puts new results into a record: works that were measured again are replaced, and of a work of which only some
 * contestants were, those alone. Of another machine's record nothing is kept.
 *
 * @param old The record so far, if there is one.
 * @param machine Where the new ones were measured.
 * @param works The new ones.
 * @param order All works' names, in order.
 */
export function merge(
  old: BenchRecord | null,
  machine: Machine,
  works: readonly WorkRecord[],
  order: readonly string[],
): BenchRecord {
  const kept = old && JSON.stringify(old.machine) === JSON.stringify(machine) ? old.works : [];
  const merged = new Map(kept.map((work) => [work.name, work]));
  for (const work of works) {
    const before = merged.get(work.name);
    const same = before?.quick === work.quick && before.threads === work.threads;
    const names = new Set(work.results.map(({ name }) => name));
    const others = same ? before.results.filter(({ name }) => !names.has(name)) : [];
    merged.set(work.name, {
      ...work,
      results: [...work.results, ...others.map((result) => ({ ...result, earlier: true }))],
    });
  }
  return {
    machine,
    works: [...merged.values()].sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name)),
  };
}

/**
 * The table and what belongs to it, in Markdown.
 *
 * @param record What is to be shown.
 */
export function render({ machine, works }: BenchRecord): string {
  const { cpu, cores, memory, system, deno, v8, flags } = machine;
  const versions = new Set(
    works.flatMap(({ results }) => results.flatMap(({ version }) => version?.split(", ") ?? [])),
  );
  const quick = works.filter((work) => work.quick).map(({ name }) => name);
  const spans = new Set(works.map(({ runs, date }) => `${runs} runs each, ${date}`));
  const missing = works.flatMap(({ name, results }) =>
    results.flatMap(({ name: who, failed, absent }) => {
      if (failed !== undefined) return [`- ${name}, ${who} failed: ${escape(failed)}`];
      return absent === undefined ? [] : [`- ${name}, ${who} is left out: ${escape(absent)}`];
    })
  );
  const table = [HEAD, HEAD.map(() => ""), ...works.flatMap(lines)];
  return [
    `${cpu}, ${cores} cores, ${memory} GiB, ${system}; Deno ${deno}, V8 ${v8}${
      flags ? `, V8 flags ${flags}` : ", default flags"
    }. Medians of ${[...spans].join("; ")}.`,
    ...(quick.length > 0
      ? [
        `**With a model of two layers and few tokens, to see that it works, no measurements: ${
          quick.join(", ")
        }.**`,
      ]
      : []),
    layout(table),
    ...(missing.length > 0 ? [missing.join("\n")] : []),
    ...(works.some(({ results }) => results.some(({ earlier }) => earlier))
      ? ["† measured in an earlier run on the same machine."]
      : []),
    ...(versions.size > 0 ? [`Measured: ${[...versions].sort().join(", ")}.`] : []),
  ].join("\n\n");
}

/**
 * Replaces the generated section of a page, or appends it to a page that has none.
 *
 * @param page The page.
 * @param section What the section is to hold.
 * @throws {Error} If it has a section that does not end.
 */
export function replaceSection(page: string, section: string): string {
  const whole = `${BEGIN}\n\n${section.trim()}\n\n${END}`;
  const begin = page.indexOf(BEGIN);
  if (begin < 0) return `${page.trimEnd()}\n\n${whole}\n`.trimStart();
  const end = page.indexOf(END, begin);
  if (end < 0) throw new Error(`the page has ${BEGIN} and no ${END}`);
  return page.slice(0, begin) + whole + page.slice(end + END.length);
}

/** A work's lines of the table, a line for each comparison. */
function lines(work: WorkRecord): string[][] {
  const results = new Map(work.results.map((result) => [result.name, result]));
  return work.comparisons.map(({ whet, beside, target }, i) => {
    const own = results.get(whet), other = beside === undefined ? undefined : results.get(beside);
    const ratio = ratioOf(work, own?.value, other?.value);
    return [
      i === 0 ? `${work.title} (${work.unit})` : "",
      whet,
      ...cells(own),
      beside ?? "—",
      ...(beside === undefined ? ["", ""] : cells(other)),
      ratio === null ? "—" : `${figure(ratio)} ×`,
      target === undefined
        ? ""
        : aim(work, target, beside === undefined ? own?.value ?? null : ratio, beside),
    ];
  });
}

function cells(result: WorkRecord["results"][number] | undefined): [string, string] {
  if (!result) return ["not run", ""];
  if (result.failed !== undefined) return ["failed", ""];
  if (result.absent !== undefined) return ["left out", ""];
  const { value, low, high, earlier } = result;
  return [figure(value!) + (earlier ? " †" : ""), `${figure(low!)} – ${figure(high!)}`];
}

function ratioOf({ ratio }: WorkRecord, whet: number | undefined, other: number | undefined): number | null {
  if (whet === undefined || other === undefined) return null;
  return ratio === "whet/other" ? whet / other : other / whet;
}

/** The target, and whether it is met. */
function aim(work: WorkRecord, target: number, actual: number | null, beside: string | undefined): string {
  const least = beside === undefined
    ? work.better === "more"
    : work.better === "more" || work.ratio === "other/whet";
  const words = `${least ? "≥" : "≤"} ${target} ${beside === undefined ? work.unit : "×"}`;
  if (actual === null) return words;
  return `${words} ${(least ? actual >= target : actual <= target) ? "✓" : "✗"}`;
}

/** Three digits. */
function figure(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** Text that Markdown leaves as it is. */
function escape(text: string): string {
  return text.replaceAll(/[\\`*_<>|[\]]/g, "\\$&");
}

/** A Markdown table whose columns stand under each other, to be read as it is too. */
function layout(table: readonly (readonly string[])[]): string {
  const widths = table[0].map((_, column) => Math.max(...table.map((row) => row[column].length)));
  return table.map((row, line) =>
    `| ${row.map((cell, i) => cell.padEnd(widths[i], line === 1 ? "-" : " ")).join(" | ")} |`
  ).join("\n");
}
