/**
 * The scores' picture: how much higher each question's tuned answer scored than the plain one, and the mean.
 *
 * @module
 */
import { valueAxis } from "./axis.ts";
import { paint, STYLE } from "./marks.ts";
import { round, text } from "./svg_text.ts";
import { escapeText, formatNumber } from "./text.ts";

/** Marks' colours, those of the page's tally: better, equal, worse, and the mean. */
const BETTER = 2, EQUAL = 5, WORSE = 4, MEAN = 0;

/** How the picture looks. */
export interface ScoreChartOptions {
  /** The mean's confidence interval, drawn as a band. */
  readonly interval: readonly [low: number, high: number];
  /** The interval's level [0.95]. */
  readonly level?: number;
  /** What stands above it ["Difference of each question's scores, fine-tuned less plain"]. */
  readonly title?: string;
  /** Width in pixels [800]; the picture scales to its place. */
  readonly width?: number;
  /** Height in pixels [320]. */
  readonly height?: number;
}

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

/**
 * Draws paired differences as bars, from the worst to the best.
 *
 * @param differences A number for each question; finite.
 * @param options Interval, title, size.
 * @returns The SVG document, which also stands inside an HTML page as it is.
 * @example
 * ```ts
 * import { scoreChart } from "./score_chart.ts";
 *
 * console.log(scoreChart([0.4, -0.1, 0.2], { interval: [-0.1, 0.4] })); // <svg xmlns="http://www.w3.org/2000/svg" …
 * ```
 */
export function scoreChart(differences: readonly number[], options: ScoreChartOptions): string {
  const { interval: [low, high], level = 0.95, width = 800, height = 320 } = options;
  const title = options.title ?? "Difference of each question’s scores, fine-tuned less plain";
  const sorted = differences.toSorted((a, b) => a - b);
  const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  const [left, right, top, bottom] = [66, width - 24, 84, height - 40];
  const y = valueAxis([...sorted, low, high, 0], Math.floor((bottom - top) / 36));
  const at = (value: number) => bottom - y.place(value) * (bottom - top);
  const soft = `class="soft" font-size="12" fill="#59626e"`;

  const parts = [`<rect class="paper" width="${width}" height="${height}" rx="6" fill="#ffffff"/>`];
  parts.push(text(24, 32, title, `class="ink" font-size="17" font-weight="600" fill="#1b1f24"`));
  for (const { value, label } of y.ticks) {
    const place = round(at(value));
    parts.push(`<path class="grid" d="M${left} ${place}H${right}" stroke="#e3e7ec"/>`);
    parts.push(text(left - 8, Number(place) + 4, label, `${soft} text-anchor="end"`));
  }
  const band = Math.max(1, at(low) - at(high));
  parts.push(
    `<rect class="f${MEAN}" x="${left}" y="${round(at(high))}" width="${right - left}" height="${
      round(band)
    }" ` +
      `fill="${paint(MEAN)}" fill-opacity="0.2"/>`,
  );
  const step = (right - left) / sorted.length, bar = Math.min(28, step * 0.72);
  for (const [i, value] of sorted.entries()) {
    const x = left + (i + 0.5) * step - bar / 2;
    const [from, to] = [Math.min(at(0), at(value)), Math.max(at(0), at(value))];
    const color = value < 0 ? WORSE : value > 0 ? BETTER : EQUAL;
    parts.push(
      `<rect class="f${color}" x="${round(x)}" y="${round(from)}" width="${round(bar)}" ` +
        `height="${round(Math.max(1, to - from))}" fill="${paint(color)}"/>`,
    );
  }
  parts.push(`<path class="frame" d="M${left} ${round(at(0))}H${right}" fill="none" stroke="#8b95a1"/>`);
  parts.push(
    `<path class="s${MEAN}" d="M${left} ${round(at(mean))}H${right}" fill="none" stroke="${
      paint(MEAN)
    }" stroke-width="2"/>`,
  );
  const key = [[BETTER, "fine-tuned better"], [WORSE, "worse"], [
    MEAN,
    `mean, and its ${formatNumber(level * 100)} % interval`,
  ]];
  let x = 24;
  for (const [color, label] of key as [number, string][]) {
    parts.push(
      `<rect class="f${color}" x="${x}" y="51" width="14" height="11" rx="2" fill="${paint(color)}"/>`,
      text(x + 20, 61, label, `class="ink" font-size="13" fill="#1b1f24"`),
    );
    x += 44 + label.length * 7;
  }
  parts.push(
    text(
      (left + right) / 2,
      bottom + 24,
      "questions, from the worst difference to the best",
      `class="ink" font-size="13" fill="#1b1f24" text-anchor="middle"`,
    ),
  );
  const better = sorted.filter((value) => value > 0).length,
    worse = sorted.filter((value) => value < 0).length;
  const description = `${formatNumber(sorted.length)} questions: ${better} better, ${
    sorted.length - better - worse
  } equal, ${worse} worse; mean ${formatNumber(mean)}, interval ${formatNumber(low)} to ${
    formatNumber(high)
  }.`;
  return `<svg xmlns="http://www.w3.org/2000/svg" class="whet-curve" viewBox="0 0 ${width} ${height}" width="${width}" ` +
    `height="${height}" role="img" aria-labelledby="whet-scores-t whet-scores-d" font-family="${
      escapeText(FONT)
    }">\n<title id="whet-scores-t">${escapeText(title)}</title>\n<desc id="whet-scores-d">${
      escapeText(description)
    }</desc>\n<style>${STYLE}</style>\n${parts.join("\n")}\n</svg>\n`;
}
