/**
 * The report's section on reward scores.
 *
 * @module
 */
import type { StudyScores } from "./study_result.ts";
import { escapeText, formatNumber } from "./text.ts";

/**
 * What the reward model says.
 *
 * @param scores Means, paired difference, counts.
 * @returns HTML.
 */
export function scoreSection(scores: StudyScores): string {
  const { wins, ties, losses, pairs, interval: [low, high], level = 0.95, signTest, resamples } = scores;
  const total = Math.max(1, wins + ties + losses);
  const bar = (kind: string, n: number) =>
    n > 0 ? `<span class="${kind}" style="flex-grow:${n}">${formatNumber(n)}</span>` : "";
  return `<p>Judge: <b>${escapeText(scores.judge)}</b>, ${questions(pairs)}. ${verdict(scores)}</p>
<div class="scroll"><table class="figures">
<thead><tr><th scope="col">mean, plain</th><th scope="col">mean, fine-tuned</th><th scope="col">mean difference</th>` +
    `<th scope="col">${formatNumber(level * 100)} % interval</th>${
      signTest === undefined ? "" : `<th scope="col">sign test</th>`
    }</tr></thead>
<tbody><tr><td>${signed(scores.meanBase)}</td><td>${signed(scores.meanTuned)}</td><td>${
      signed(scores.difference, true)
    }</td><td>${signed(low, true)} to ${signed(high, true)}</td>${
      signTest === undefined ? "" : `<td>p = ${formatNumber(signTest, 2)}</td>`
    }</tr></tbody>
</table></div>
<div class="tally" role="img" aria-label="Fine-tuned better ${wins}, equal ${ties}, worse ${losses}">${
      bar("win", wins)
    }${bar("tie", ties)}${bar("loss", losses)}</div>
<p class="note">Fine-tuned better in ${formatNumber(wins)} (${(wins / total * 100).toFixed(0)} %), equal in ${
      formatNumber(ties)
    }, worse in ${
      formatNumber(losses)
    }. The differences are paired, question by question; the interval is a bootstrap of their mean${
      resamples === undefined ? "" : ` (${formatNumber(resamples)} resamples, percentiles)`
    }, and the sign test is exact and leaves equal scores out.</p>`;
}

/** Fewer questions than these are an example, not a sample: a bootstrap of so few is far too sure of itself. */
const FEW = 10;
/** A p-value below this counts as telling. */
const TELLING = 0.05;

/** What the figures say in words, and no more than they do. */
function verdict({ wins, losses, pairs, interval: [low, high], signTest }: StudyScores): string {
  if (wins + losses === 0) return "Both models' answers score the same.";
  if (pairs < FEW) {
    return `So few questions tell nothing about the models: ask ${FEW} at the least, better 50 or more.`;
  }
  const clear = low > 0 ? "higher" : high < 0 ? "lower" : null;
  if (!clear) return "The interval holds zero: so many questions do not tell the two models apart.";
  if (signTest !== undefined && signTest >= TELLING) {
    return `The fine-tuned model's answers score ${clear} on average, and the interval does not hold zero; but ` +
      "the sign test does not tell the two models apart: a few large differences make the mean.";
  }
  return `The fine-tuned model's answers score ${clear}: the interval does not hold zero.`;
}

/** So many questions. */
export function questions(n: number): string {
  return `${formatNumber(n)} ${n === 1 ? "question" : "questions"}`;
}

function signed(value: number, plus = false): string {
  const text = Math.abs(value).toFixed(4);
  return `${value < 0 ? "−" : plus && value > 0 ? "+" : ""}${text}`;
}
