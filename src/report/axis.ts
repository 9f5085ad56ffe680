/**
 * Axes: what range a picture shows, where its ticks lie and what they say.
 *
 * @module
 */
import { formatNumber } from "./text.ts";

/** An axis from data to the picture's units. */
export interface Axis {
  /** Whether equal distances are equal ratios. */
  readonly logarithmic: boolean;
  /** Where the labelled lines are. */
  readonly ticks: readonly { readonly value: number; readonly label: string }[];
  /** A value's place, from 0 (the axis's beginning) to 1 (its end). */
  place(value: number): number;
}

/** Values whose greatest is so many times the least are shown on a logarithmic axis, if all are positive. */
const WIDE = 1000;

/**
 * An axis for values such as losses: padded a little, logarithmic where the range is huge.
 *
 * @param values The finite values to show; none gives an axis from 0 to 1.
 * @param most About how many ticks there is room for.
 * @returns The axis.
 */
export function valueAxis(values: Iterable<number>, most: number): Axis {
  let [low, high] = extent(values);
  if (low > 0 && high / low >= WIDE) return logarithmicAxis(low, high, most);
  const pad = (high - low) * 0.06 || Math.abs(low) * 0.1 || 1;
  // A loss is never negative: no room is left below zero for one that comes close to it.
  low = low >= 0 ? Math.max(0, low - pad) : low - pad;
  high += pad;
  return linearAxis(low, high, tickStep(high - low, most));
}

/**
 * An axis for steps: whole numbers, from zero where the run begins near it.
 *
 * @param values The steps to show.
 * @param room How many ticks fit whose labels have so many characters.
 * @returns The axis.
 */
export function stepAxis(values: Iterable<number>, room: (characters: number) => number): Axis {
  let [low, high] = extent(values);
  if (low > 0 && low < high / 10) low = 0;
  if (low === high) [low, high] = [low - 1, high + 1];
  const step = tickStep(high - low, Math.max(2, room(formatNumber(Math.round(high)).length)));
  return linearAxis(low, high, Math.max(1, step));
}

function extent(values: Iterable<number>): [low: number, high: number] {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 1];
}

/** The least of 1, 2, 2.5 and 5 times a power of ten that gives no more ticks than asked for. */
function tickStep(span: number, most: number): number {
  const wanted = Math.max(span / Math.max(1, most), Number.MIN_VALUE);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return ([1, 2, 2.5, 5].find((digit) => digit * power >= wanted * (1 - 1e-9)) ?? 10) * power;
}

function linearAxis(low: number, high: number, step: number): Axis {
  const values: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && values.length < 50; i++) {
    values.push(i * step);
  }
  const [mantissa, power] = step.toExponential().split("e");
  const decimals = Math.max(0, mantissa.replace(/^\d\.?/, "").length - Number(power));
  const label = (value: number) =>
    decimals > 6 || Math.abs(value) >= 1e9
      ? formatNumber(Number(value.toPrecision(6)), 3)
      : grouped(value, decimals);
  return {
    logarithmic: false,
    ticks: values.map((value) => ({ value, label: label(value) })),
    place: (value) => (value - low) / (high - low),
  };
}

function logarithmicAxis(low: number, high: number, most: number): Axis {
  const [begin, end] = [Math.log10(low), Math.log10(high)];
  const pad = (end - begin) * 0.06;
  const stride = Math.max(1, Math.ceil((end - begin) / Math.max(1, most)));
  const ticks = [];
  for (let power = Math.ceil((begin - pad) / stride) * stride; power <= end + pad; power += stride) {
    const value = Number(`1e${power}`);
    ticks.push({
      value,
      label: power >= -3 && power <= 6 ? grouped(value, Math.max(0, -power)) : `1e${power}`,
    });
  }
  return {
    logarithmic: true,
    ticks,
    place: (value) => (Math.log10(value) - begin + pad) / (end - begin + 2 * pad),
  };
}

function grouped(value: number, decimals: number): string {
  const text = Math.abs(value).toLocaleString("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  });
  return value < 0 && /[1-9]/.test(text) ? `−${text}` : text;
}
