/**
 * Loss curves as SVG: the loss of every step as a thin line, its means over windows as a bold one, losses
 * of held-out data as dots.
 *
 * A picture is one string, needs nothing from elsewhere, follows the reader's light or dark scheme and
 * carries a title and a description for those who hear it.
 *
 * @module
 */
import { type Axis, stepAxis, valueAxis } from "./axis.ts";
import { flow, legend } from "./legend.ts";
import { COLORS, dot, line, paint, STYLE } from "./marks.ts";
import {
  type DrawnSeries,
  type LossPoint,
  type LossSeries,
  niceWindow,
  thin,
  windowMeans,
} from "./series.ts";
import { round, text, textWidth, wrap } from "./svg_text.ts";
import { escapeText, formatNumber } from "./text.ts";

export type { LossPoint, LossSeries } from "./series.ts";

/** How a loss curve looks. */
export interface LossCurveOptions {
  /** What stands above it ["Training loss"]. */
  readonly title?: string;
  /** Steps per mean [about a fortieth of the run, see {@linkcode niceWindow}]. */
  readonly window?: number;
  /** `"steps"` draws every step alone, `"means"` the means alone ["both"]. */
  readonly show?: "both" | "steps" | "means";
  /** Losses of held-out data. */
  readonly evalPoints?: readonly LossPoint[];
  /** Width in pixels [800]; the picture scales to its place. */
  readonly width?: number;
  /** Height in pixels [420]. */
  readonly height?: number;
  /** More runs beside the first. */
  readonly series?: readonly LossSeries[];
  /** The first run's name where there are several ["this run"]. */
  readonly name?: string;
}

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
/** Bold letters are wider than the rest. */
const BOLD = 1.18;
/**
 * Draws a loss curve.
 *
 * A loss that is not finite is a gap. Many points are thinned to the lowest and highest of each pixel's
 * column, so that a picture of any run stays small. Where losses differ a thousandfold, the axis is
 * logarithmic.
 *
 * @param points The loss of each step, in nats per token; any order.
 * @param options Title, window, held-out losses, size, more runs.
 * @returns The SVG document, which also stands inside an HTML page as it is.
 * @example
 * ```ts
 * import { lossCurve } from "./loss_curve.ts";
 *
 * const svg = lossCurve([{ step: 1, loss: 3.2 }, { step: 2, loss: 2.9 }], { title: "Training loss" });
 * console.log(svg); // <svg xmlns="http://www.w3.org/2000/svg" …
 * ```
 */
export function lossCurve(points: readonly LossPoint[], options: LossCurveOptions = {}): string {
  const { title = "Training loss", show = "both", width = 800, height = 420 } = options;
  const runs: LossSeries[] = [
    { name: options.name ?? "this run", points, evalPoints: options.evalPoints },
    ...options.series ?? [],
  ].map(({ name, points, evalPoints = [] }) => ({
    name,
    points: inOrder(points),
    evalPoints: inOrder(evalPoints),
  }));
  const longest = runs.reduce((most, { points }) => Math.max(most, points.length), 0);
  const window = Math.max(1, Math.floor(options.window ?? niceWindow(longest)));
  const drawn = runs.map((run) => ({
    ...run,
    means: show === "steps" || window === 1 ? [] : windowMeans(run.points, window),
  }));
  const showSteps = show !== "means" || window === 1;
  const shown = drawn.map((
    { points, means, evalPoints },
  ) => [...showSteps ? points : [], ...means, ...evalPoints!]).flat();

  // The title and the legend take the rows that they need, the labels of the losses the width.
  const head = wrap(title, 17 * BOLD, width - 48);
  const entries = legend(drawn, { window, showSteps });
  const rows = flow(entries, width - 48);
  const top = 22 + head.length * 22 + rows.length * 20 + 16;
  const bottom = height - 52;
  const y = valueAxis(shown.map(({ loss }) => loss), Math.max(4, Math.floor((bottom - top) / 42)));
  const left = 46 + Math.ceil(y.ticks.reduce((most, { label }) => Math.max(most, textWidth(label, 12)), 12));
  const finals = ends(drawn);
  const steps = runs.flatMap(({ points, evalPoints }) => [...points, ...evalPoints!]).map(({ step }) => step);
  const margins = [...finals.map(({ label }) => textWidth(label, 12) + 12), lastTickWidth(steps) / 2, 12];
  const right = width - 12 - Math.ceil(Math.max(...margins));
  const x = stepAxis(
    steps,
    (characters) => Math.floor((right - left) / (characters * 7.5 + 26)),
  );
  const at = ({ step, loss }: LossPoint): [number, number] => [
    left + x.place(step) * (right - left),
    bottom - y.place(loss) * (bottom - top),
  ];
  const columns = Math.max(50, Math.floor((right - left) / Math.max(1, runs.length / 2)));

  const parts: string[] = [];
  parts.push(`<rect class="paper" width="${width}" height="${height}" rx="6" fill="#ffffff"/>`);
  head.forEach((line, i) =>
    parts.push(text(24, 32 + i * 22, line, `class="ink" font-size="17" font-weight="600" fill="#1b1f24"`))
  );
  rows.forEach((row, i) =>
    parts.push(...row.map((entry) => entry.draw(24 + entry.x, 34 + head.length * 22 + i * 20)))
  );
  parts.push(...axes(x, y, { left, right, top, bottom }));
  for (const [i, { points, means }] of drawn.entries()) {
    const alone = means.length === 0;
    const faint = runs.length > 1 ? 0.25 : 0.5;
    if (showSteps) parts.push(line(thin(points, columns), at, i, alone ? 1.4 : 1, alone ? 0.9 : faint));
  }
  for (const [i, { means, evalPoints }] of drawn.entries()) {
    if (means.length > 0) parts.push(line(thin(means, columns), at, i, 2.4, 1));
    const held = runs.length === 1 ? 1 : i;
    const dots = thin(evalPoints!, 50).filter(({ loss }) => Number.isFinite(loss));
    if (dots.length > 1) parts.push(line(dots, at, held, 1.2, 0.7, "4 4"));
    for (const [cx, cy] of dots.map(at)) parts.push(dot(cx, cy, held));
  }
  for (
    const { label, color, place } of spread(
      finals.map((final) => ({ ...final, place: at(final.point)[1] })),
      top,
      bottom,
    )
  ) {
    parts.push(
      text(
        right + 6,
        place + 4,
        label,
        `class="f${color % COLORS.length}" font-size="12" font-weight="600" fill="${paint(color)}"`,
      ),
    );
  }
  const description = describe(drawn, window, y);
  const id = `whet-${hash(title + description + width)}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" class="whet-curve" viewBox="0 0 ${width} ${height}" width="${width}" ` +
    `height="${height}" role="img" aria-labelledby="${id}-t ${id}-d" font-family="${escapeText(FONT)}">\n` +
    `<title id="${id}-t">${escapeText(title)}</title>\n<desc id="${id}-d">${
      escapeText(description)
    }</desc>\n` +
    `<style>${STYLE}</style>\n${parts.join("\n")}\n</svg>\n`;
}

function inOrder(points: readonly LossPoint[]): LossPoint[] {
  const known = points.filter(({ step }) => Number.isFinite(step));
  const sorted = known.every(({ step }, i) => i === 0 || known[i - 1].step <= step);
  return sorted ? known : known.sort((a, b) => a.step - b.step);
}

function axes(
  x: Axis,
  y: Axis,
  { left, right, top, bottom }: Record<"left" | "right" | "top" | "bottom", number>,
): string[] {
  const parts: string[] = [];
  const soft = `class="soft" font-size="12" fill="#59626e"`;
  for (const { value, label } of y.ticks) {
    const place = round(bottom - y.place(value) * (bottom - top));
    parts.push(`<path class="grid" d="M${left} ${place}H${right}" stroke="#e3e7ec"/>`);
    parts.push(text(left - 8, Number(place) + 4, label, `${soft} text-anchor="end"`));
  }
  for (const { value, label } of x.ticks) {
    const place = round(left + x.place(value) * (right - left));
    parts.push(`<path class="grid" d="M${place} ${top}V${bottom}" stroke="#e3e7ec"/>`);
    parts.push(text(Number(place), bottom + 18, label, `${soft} text-anchor="middle"`));
  }
  parts.push(`<path class="frame" d="M${left} ${top}V${bottom}H${right}" fill="none" stroke="#8b95a1"/>`);
  parts.push(
    text(
      (left + right) / 2,
      bottom + 40,
      "step",
      `class="ink" font-size="13" fill="#1b1f24" text-anchor="middle"`,
    ),
  );
  const middle = (top + bottom) / 2;
  const full = `loss (nats per token${y.logarithmic ? ", log scale" : ""})`;
  const label = textWidth(full, 13) < bottom - top + 30 ? full : "loss";
  parts.push(
    text(
      20,
      middle,
      label,
      `class="ink" font-size="13" fill="#1b1f24" text-anchor="middle" transform="rotate(-90 20 ${
        round(middle)
      })"`,
    ),
  );
  return parts;
}

/** The last figures of a few runs, to be written beside their ends. */
function ends(runs: readonly DrawnSeries[]): { label: string; color: number; point: LossPoint }[] {
  if (runs.length > 4) return [];
  return runs.flatMap(({ points, means, evalPoints }, i) => {
    const last = (points: readonly LossPoint[]) => points.findLast(({ loss }) => Number.isFinite(loss));
    const own = last(means.length > 0 ? means : points);
    const held = last(evalPoints!);
    const entry = (point: LossPoint | undefined, color: number) =>
      point ? [{ label: formatLoss(point.loss), color, point }] : [];
    return [...entry(own, i), ...(runs.length === 1 ? entry(held, 1) : [])];
  });
}

/** Three digits, of a whole number too. */
function formatLoss(loss: number): string {
  return Number.isInteger(loss) && Math.abs(loss) < 1000 ? loss.toFixed(2) : formatNumber(loss, 3);
}

/** How wide the last tick's label may be, half of which lies beyond the axis. */
function lastTickWidth(steps: readonly number[]): number {
  const last = steps.reduce((most, step) => Math.max(most, step), 1);
  return textWidth(formatNumber(Math.round(last)), 12);
}

/** Labels moved apart so that none lies on another. */
function spread<T extends { place: number }>(labels: T[], top: number, bottom: number): T[] {
  const sorted = labels.toSorted((a, b) => a.place - b.place);
  for (const [i, label] of sorted.entries()) {
    label.place = Math.max(label.place, i === 0 ? top + 4 : sorted[i - 1].place + 15);
  }
  for (let i = sorted.length - 1; i >= 0; i--) {
    sorted[i].place = Math.min(
      sorted[i].place,
      i === sorted.length - 1 ? bottom - 2 : sorted[i + 1].place - 15,
    );
  }
  return sorted;
}

/** The curve in words. */
function describe(runs: readonly DrawnSeries[], window: number, y: Axis): string {
  return runs.map(({ name, points, means, evalPoints }) => {
    const finite = points.filter(({ loss }) => Number.isFinite(loss));
    const who = runs.length > 1 ? `${name}: ` : "";
    if (finite.length === 0) return `${who}no step has a finite loss.`;
    const curve = means.filter(({ loss }) => Number.isFinite(loss));
    const [from, to] = [(curve[0] ?? finite[0]).loss, (curve.at(-1) ?? finite.at(-1)!).loss];
    const held = evalPoints!.filter(({ loss }) => Number.isFinite(loss));
    return `${who}${formatNumber(points.length)} steps; the loss${
      curve.length > 0 ? `, averaged over ${formatNumber(window)} steps,` : ""
    } goes from ${formatNumber(from)} to ${formatNumber(to)} nats per token.` +
      (held.length > 0
        ? ` Held-out data: ${formatNumber(held[0].loss)} to ${formatNumber(held.at(-1)!.loss)}.`
        : "");
  }).join(" ") + (y.logarithmic ? " The losses' axis is logarithmic." : "");
}

/** A name for ids: equal pictures on one page may share it. */
function hash(content: string): string {
  let value = 0x811c9dc5;
  for (let i = 0; i < content.length; i++) value = Math.imul(value ^ content.charCodeAt(i), 0x01000193) >>> 0;
  return value.toString(36);
}
