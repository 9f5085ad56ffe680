/**
 * A study's report: one HTML page with figures, curves and answers, that needs nothing from elsewhere.
 *
 * @module
 */
import { lossCurve } from "./loss_curve.ts";
import { answerCards } from "./report_answers.ts";
import { scoreSection } from "./report_scores.ts";
import { REPORT_STYLE } from "./report_style.ts";
import { niceWindow } from "./series.ts";
import type { StudyResult, StudyScores } from "./study_result.ts";
import { escapeText, formatDuration, formatNumber } from "./text.ts";

/** How a report is made. */
export interface StudyReportOptions {
  /** The page's title ["MODEL before and after fine-tuning"]. */
  title?: string;
  /** Steps per mean in the second figure [about a fortieth of the run]. */
  window?: number;
}

/**
 * Makes the page.
 *
 * Texts of models and data are escaped wherever they stand; the page has no script, loads nothing and
 * forbids both to itself. It follows the reader's light or dark scheme and prints in black on white.
 *
 * @param data Figures, curves and answers.
 * @param options Title and window.
 * @returns The HTML document.
 * @example
 * ```ts
 * import { studyReport } from "./study_report.ts";
 * import { study } from "./study.ts";
 *
 * const { result } = await study({ training: { steps: 2 }, questions: 1 });
 * console.log(studyReport(result, { title: "Two steps" }).length);
 * ```
 */
export function studyReport(data: StudyResult, options: StudyReportOptions = {}): string {
  const title = options.title ?? `${data.model} before and after fine-tuning`;
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="Whet ${escapeText(data.environment.whet)}">
<title>${escapeText(title)}</title>
<style>${REPORT_STYLE}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">Whet study</p>
<h1>${escapeText(title)}</h1>
<p class="lead">${summary(data)}</p>
</header>
${tiles(data)}
<section aria-labelledby="losses">
<h2 id="losses">Loss on held-out data</h2>
${lossTable(data)}
</section>
<section aria-labelledby="curves">
<h2 id="curves">Loss while training</h2>
${curves(data, options.window)}
</section>
${data.scores ? scores(data.scores) : ""}
<section aria-labelledby="answers">
<h2 id="answers">Answers before and after</h2>
${answerCards(data.answers)}
</section>
<section aria-labelledby="settings">
<h2 id="settings">How it was done</h2>
<p>Model: <b>${escapeText(data.model)}</b>. Data: ${escapeText(data.data)}.</p>
<div class="columns">
${pairTable("Settings", data.settings)}
${pairTable("Run", run(data))}
</div>
</section>
</main>
<footer><p>Made by Whet ${escapeText(data.environment.whet)}.</p></footer>
</body>
</html>
`;
}

function scores(scores: StudyScores): string {
  return `<section aria-labelledby="scores">
<h2 id="scores">Reward scores</h2>
${scoreSection(scores)}
</section>`;
}

/** The outcome in words. */
function summary(data: StudyResult): string {
  const { lossBase, lossTuned, perplexityBase, perplexityTuned, points, scores } = data;
  const steps = points.at(-1)?.step ?? 0;
  const change = lossTuned - lossBase;
  const verb = change < 0 ? "fell" : change > 0 ? "rose" : "stayed";
  const from = change === 0
    ? `at ${loss(lossBase)}`
    : `from <b>${loss(lossBase)}</b> to <b>${loss(lossTuned)}</b>`;
  const share = data.parametersTrained / data.parametersTotal;
  const trained = data.parametersTrained < data.parametersTotal
    ? `, which trained ${count(data.parametersTrained)} of the model's ${
      count(data.parametersTotal)
    } parameters (${percent(share)})`
    : `, which trained all ${count(data.parametersTotal)} parameters`;
  const judged = scores
    ? ` The reward model's mean score went from <b>${score(scores.meanBase)}</b> to <b>${
      score(scores.meanTuned)
    }</b> over ${count(scores.pairs)} questions.`
    : "";
  return `On text that it never trained on, the loss of ${escapeText(data.model)} ${verb} ${from} nats per ` +
    `token (perplexity ${digits(perplexityBase)} to ${digits(perplexityTuned)}) after ${count(steps)} ` +
    `${steps === 1 ? "step" : "steps"} of fine-tuning${trained}.${judged} The whole study took ` +
    `${formatDuration(data.seconds)}.`;
}

function tiles(data: StudyResult): string {
  const { lossBase, lossTuned, perplexityBase, perplexityTuned } = data;
  const tile = (name: string, value: string, note: string) =>
    `<div class="tile"><dt>${name}</dt><dd>${value}</dd><dd class="note">${note}</dd></div>`;
  const arrow = (from: string, to: string) =>
    `<span class="before">${from}</span> <span class="to" aria-label="to">→</span> ${to}`;
  return `<dl class="tiles">
${
    tile(
      "Held-out loss",
      arrow(short(lossBase), short(lossTuned)),
      `nats per token, ${relative(lossBase, lossTuned)}`,
    )
  }
${
    tile(
      "Perplexity",
      arrow(digits(perplexityBase), digits(perplexityTuned)),
      relative(perplexityBase, perplexityTuned),
    )
  }
${
    tile(
      "Trained",
      count(data.parametersTrained),
      `of ${count(data.parametersTotal)} parameters`,
    )
  }
${tile("Pace", count(Math.round(data.tokensPerSecond)), "tokens per second in training")}
</dl>`;
}

function lossTable(data: StudyResult): string {
  const { lossBase, lossTuned, perplexityBase, perplexityTuned, evalTokens } = data;
  const row = (name: string, from: number, to: number, write: (value: number) => string) =>
    `<tr><th scope="row">${name}</th><td>${write(from)}</td><td>${write(to)}</td>` +
    `<td>${difference(from, to, write)}</td><td>${relative(from, to)}</td></tr>`;
  const notes = [
    evalTokens ? `Means over ${count(evalTokens)} tokens of held-out text.` : "",
    data.scores
      ? ""
      : "No reward model was given: answers were not scored, and only likelihoods are reported.",
  ].filter((note) => note !== "");
  return `<div class="scroll"><table class="figures">
<thead><tr><td></td><th scope="col">plain</th><th scope="col">fine-tuned</th><th scope="col">difference</th><th scope="col">change</th></tr></thead>
<tbody>
${row("Loss (nats per token)", lossBase, lossTuned, loss)}
${row("Perplexity", perplexityBase, perplexityTuned, digits)}
</tbody>
</table></div>
${notes.length > 0 ? `<p class="note">${notes.join(" ")}</p>` : ""}`;
}

function curves({ points, evalPoints }: StudyResult, wanted?: number): string {
  if (points.length === 0) return "<p>No step was trained.</p>";
  const window = Math.max(1, Math.floor(wanted ?? niceWindow(points.length)));
  const figure = (svg: string, caption: string) =>
    `<figure>${svg}<figcaption>${caption}</figcaption></figure>`;
  const each = lossCurve(points, {
    title: "Loss of every step",
    show: "steps",
    ...(window === 1 ? { evalPoints } : {}),
  });
  if (window === 1) return figure(each, "Training loss of every step, and the loss on held-out data.");
  const means = lossCurve(points, {
    title: `Mean loss over windows of ${formatNumber(window)} steps`,
    ...{ window, evalPoints, show: "means" },
  });
  return figure(each, "Training loss of every step.") +
    figure(means, `The same as means over windows of ${count(window)} steps, and the loss on held-out data.`);
}

function run(data: StudyResult): Record<string, string | number> {
  const { whet, deno, backend, device } = data.environment;
  return {
    "steps": data.points.at(-1)?.step ?? 0,
    "parameters trained": data.parametersTrained,
    "parameters in all": data.parametersTotal,
    "tokens per second": Math.round(data.tokensPerSecond),
    "time for everything": formatDuration(data.seconds),
    "backend": backend,
    ...(device ? { device } : {}),
    "Whet": whet,
    "Deno": deno,
  };
}

function pairTable(caption: string, pairs: Readonly<Record<string, string | number>>): string {
  const rows = Object.entries(pairs).map(([name, value]) =>
    `<tr><th scope="row">${escapeText(name)}</th><td>${
      escapeText(typeof value === "number" && Number.isInteger(value) ? formatNumber(value) : String(value))
    }</td></tr>`
  );
  return `<div class="scroll"><table class="pairs"><caption>${caption}</caption><tbody>\n${
    rows.join("\n")
  }\n</tbody></table></div>`;
}

const count = (value: number): string => formatNumber(value);
const loss = (value: number): string => Number.isFinite(value) ? value.toFixed(4) : formatNumber(value);
/** Where there is little room. */
const short = (value: number): string => Number.isFinite(value) ? value.toFixed(3) : formatNumber(value);
const digits = (value: number): string =>
  Math.abs(value) < 1000 && Number.isFinite(value) ? value.toFixed(2) : formatNumber(value);
const score = (value: number): string => (value < 0 ? "−" : "") + loss(Math.abs(value));
const percent = (share: number): string => `${formatNumber(share * 100, 2)} %`;

/** The difference with its sign. */
function difference(from: number, to: number, write: (value: number) => string): string {
  const change = to - from;
  return `${change < 0 ? "−" : change > 0 ? "+" : ""}${write(Math.abs(change))}`;
}

/** The change in percent, with its sign. */
function relative(from: number, to: number): string {
  const change = (to - from) / Math.abs(from) * 100;
  if (!Number.isFinite(change)) return "";
  return `${change < 0 ? "−" : change > 0 ? "+" : ""}${Math.abs(change).toFixed(1)} %`;
}
