/**
 * What a loss curve is drawn from: points, their means over windows, and few enough of them to draw.
 *
 * @module
 */

/** The loss at one step; a loss that is not finite is a gap in the curve. */
export interface LossPoint {
  /** The step, counted from 1. */
  readonly step: number;
  /** Nats per token. */
  readonly loss: number;
}

/** One of several runs in a picture. */
export interface LossSeries {
  /** What the legend calls it. */
  readonly name: string;
  /** The loss of each step. */
  readonly points: readonly LossPoint[];
  /** Losses of held-out data. */
  readonly evalPoints?: readonly LossPoint[];
}

/** A run as it is drawn. */
export interface DrawnSeries extends LossSeries {
  /** Its means over windows; empty where every step is drawn alone. */
  readonly means: readonly LossPoint[];
}

/**
 * A window for means that suits a run: about a fortieth of it, as 1, 2 or 5 times a power of ten. The
 * study's 60,000 steps get its 1,000.
 *
 * @param steps How many steps the run has.
 * @returns Steps per window, at least 1.
 * @example
 * ```ts
 * import { niceWindow } from "./series.ts";
 *
 * console.log(niceWindow(200), niceWindow(60_000)); // 5 1000
 * ```
 */
export function niceWindow(steps: number): number {
  const wanted = Math.max(1, steps / 40);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [5, 2, 1].find((digit) => digit * power <= wanted * (1 + 1e-9))! * power;
}

/**
 * Means over windows of consecutive steps, as the study plots them.
 *
 * A last window of less than half its length joins the one before it, so that the curve does not end in
 * the noise of a few steps.
 *
 * @param points The loss of each step, in order.
 * @param window Steps per window.
 * @returns A point per window, at the mean of its steps; its loss is the mean of the finite ones, NaN if
 * there is none.
 * @example
 * ```ts
 * import { windowMeans } from "./series.ts";
 *
 * windowMeans([{ step: 1, loss: 3 }, { step: 2, loss: 1 }], 2); // [{ step: 1.5, loss: 2 }]
 * ```
 */
export function windowMeans(points: readonly LossPoint[], window: number): LossPoint[] {
  const width = Math.max(1, Math.floor(window));
  const means: LossPoint[] = [];
  for (let begin = 0; begin < points.length;) {
    let end = Math.min(points.length, begin + width);
    if (points.length - end < width / 2) end = points.length;
    let steps = 0, losses = 0, finite = 0;
    for (let i = begin; i < end; i++) {
      steps += points[i].step;
      if (!Number.isFinite(points[i].loss)) continue;
      losses += points[i].loss;
      finite++;
    }
    means.push({ step: steps / (end - begin), loss: finite > 0 ? losses / finite : NaN });
    begin = end;
  }
  return means;
}

/**
 * At most about four points for each of so many columns: the first, lowest, highest and last, so that no
 * spike is lost. Fewer points than that are left as they are.
 *
 * @param points Points in order of their steps.
 * @param columns How many columns the picture has.
 * @returns Points in order; a column without any finite loss gives one gap.
 */
export function thin(points: readonly LossPoint[], columns: number): LossPoint[] {
  if (points.length <= 4 * columns) return [...points];
  const first = points[0].step;
  const span = points[points.length - 1].step - first || 1;
  const column = (point: LossPoint) =>
    Math.min(columns - 1, Math.floor((point.step - first) / span * columns));
  const kept: LossPoint[] = [];
  for (let begin = 0; begin < points.length;) {
    const place = column(points[begin]);
    let end = begin, low = -1, high = -1, head = -1, tail = -1;
    for (; end < points.length && column(points[end]) === place; end++) {
      const { loss } = points[end];
      if (!Number.isFinite(loss)) continue;
      if (head < 0) head = low = high = end;
      tail = end;
      if (loss < points[low].loss) low = end;
      if (loss > points[high].loss) high = end;
    }
    if (head < 0) kept.push(points[begin]);
    else {for (const i of new Set([head, Math.min(low, high), Math.max(low, high), tail])) {
        kept.push(points[i]);
      }}
    begin = end;
  }
  return kept;
}
