/**
 * The marks that curves are drawn with, and their colours in the light and the dark scheme.
 *
 * @module
 */
import type { LossPoint } from "./series.ts";
import { round } from "./svg_text.ts";

/** Colours of the runs, light and dark; the second one also marks held-out data of a single run. */
export const COLORS: readonly [light: string, dark: string][] = [
  ["#1f66d1", "#6ea8fe"],
  ["#c2570c", "#f59e4b"],
  ["#0f7b53", "#4cc38a"],
  ["#8a3ab9", "#c792ea"],
  ["#b3245c", "#f178b6"],
  ["#5b6470", "#a9b4c0"],
];
/** Dark scheme; the light one stands in the elements' own attributes, for readers without style sheets. */
export const STYLE = `@media screen and (prefers-color-scheme: dark) {
.whet-curve .paper { fill: #14181f } .whet-curve .ink { fill: #e6e9ee } .whet-curve .soft { fill: #9aa4b2 }
.whet-curve .grid { stroke: #2a313c } .whet-curve .frame { stroke: #56606e } .whet-curve .dot { stroke: #14181f }
${
  COLORS.map(([, dark], i) => `.whet-curve .s${i} { stroke: ${dark} } .whet-curve .f${i} { fill: ${dark} }`)
    .join("\n")
}
}`;

/** A run's colour in the light scheme. */
export function paint(color: number): string {
  return COLORS[color % COLORS.length][0];
}

/** Where a point lies in the picture. */
export type Place = (point: LossPoint) => [x: number, y: number];

/** A line through points, broken at gaps; a point between two gaps is a round dot. */
export function line(
  points: readonly LossPoint[],
  at: Place,
  color: number,
  width: number,
  opacity: number,
  dash = "",
): string {
  let path = "", alone = "", last = "", begin = 0, length = 0;
  const close = () => {
    if (length === 1) {
      alone += `M${last}h0`;
      path = path.slice(0, begin);
    }
    length = 0;
  };
  for (const point of points) {
    const [x, y] = at(point);
    if (!Number.isFinite(point.loss) || !Number.isFinite(y)) {
      close();
      continue;
    }
    const place = `${round(x)} ${round(y)}`;
    if (length > 0 && place === last) continue;
    if (length === 0) begin = path.length;
    path += `${length === 0 ? "M" : "L"}${place}`;
    last = place;
    length++;
  }
  close();
  const draw = (d: string, width: number) =>
    d &&
    `<path class="s${color % COLORS.length}" d="${d}" fill="none" stroke="${paint(color)}" ` +
      `stroke-width="${width}" stroke-opacity="${opacity}" stroke-linecap="round" stroke-linejoin="round"` +
      `${dash && ` stroke-dasharray="${dash}"`}/>`;
  return draw(path, width) + draw(alone, width + 3);
}

/** A dot for one evaluation. */
export function dot(x: number, y: number, color: number): string {
  return `<circle class="dot f${color % COLORS.length}" cx="${round(x)}" cy="${round(y)}" r="3.8" ` +
    `fill="${paint(color)}" stroke="#ffffff" stroke-width="1.2"/>`;
}

/** A short stroke that stands for a line in the legend. */
export function stroke(x: number, y: number, color: number, width: number, opacity: number): string {
  return `<path class="s${color % COLORS.length}" d="M${x} ${y}h22" stroke="${paint(color)}" ` +
    `stroke-width="${width}" stroke-opacity="${opacity}" stroke-linecap="round"/>`;
}
