/**
 * A picture's legend: which mark means what, in as many rows as it takes.
 *
 * @module
 */
import { dot, stroke } from "./marks.ts";
import type { DrawnSeries } from "./series.ts";
import { shorten, text, textWidth } from "./svg_text.ts";
import { formatNumber } from "./text.ts";

/** An entry of the legend. */
export interface Entry {
  /** How wide it is, its mark included. */
  readonly width: number;
  /** Where its row puts it. */
  x: number;
  /** The entry, with its text's baseline at `y`. */
  draw(x: number, y: number): string;
}

/** What the legend says of the runs. */
export function legend(
  runs: readonly DrawnSeries[],
  { window, showSteps }: { window: number; showSteps: boolean },
): Entry[] {
  const entry = (label: string, mark?: (x: number, y: number) => string): Entry => {
    const indent = mark ? 30 : 0;
    const short = shorten(label, 13, 340);
    return {
      width: indent + textWidth(short, 13),
      x: 0,
      draw: (x, y) =>
        (mark?.(x, y - 4) ?? "") + text(x + indent, y, short, `class="ink" font-size="13" fill="#1b1f24"`),
    };
  };
  const entries: Entry[] = [];
  const averaged = runs.some(({ means }) => means.length > 0);
  const means = `mean over ${formatNumber(window)} steps`;
  const steps = "every step";
  const single = runs.length === 1;
  for (const [i, { name }] of runs.entries()) {
    const label = averaged ? means : steps;
    entries.push(
      entry(
        single ? label : `${name} (${label})`,
        (x, y) => stroke(x, y, i, averaged ? 2.4 : 1.4, averaged ? 1 : 0.9),
      ),
    );
    if (single && averaged && showSteps) entries.push(entry(steps, (x, y) => stroke(x, y, i, 1, 0.5)));
  }
  if (!single && averaged && showSteps) entries.push(entry("thin lines: every step"));
  if (runs.some(({ evalPoints }) => evalPoints!.length > 0)) {
    entries.push(entry("held-out data", (x, y) => dot(x + 11, y, single ? 1 : 0)));
  }
  const gaps = runs.reduce(
    (sum, { points }) => sum + points.filter(({ loss }) => !Number.isFinite(loss)).length,
    0,
  );
  if (gaps > 0) {
    entries.push(
      entry(`${formatNumber(gaps)} ${gaps === 1 ? "step" : "steps"} without a finite loss`),
    );
  }
  return entries;
}

/** Rows of entries, each as wide as the picture allows. */
export function flow(entries: readonly Entry[], width: number): Entry[][] {
  const rows: Entry[][] = [];
  let x = Infinity;
  for (const entry of entries) {
    if (x + entry.width > width) {
      rows.push([]);
      x = 0;
    }
    entry.x = x;
    rows[rows.length - 1].push(entry);
    x += entry.width + 26;
  }
  return rows;
}
