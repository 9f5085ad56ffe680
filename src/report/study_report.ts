/**
 * A study's report: one HTML page with figures, curves and answers, that needs nothing from elsewhere.
 *
 * @module
 */
import { answerCards } from "./report_answers.ts";
import { questions, scoreSection } from "./report_scores.ts";
import { REPORT_STYLE } from "./report_style.ts";
import { niceWindow } from "./series.ts";
import { studyPictures } from "./study_files.ts";
import type { StudyResult } from "./study_result.ts";
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
  const pictures = studyPictures(data, options.window);
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
${curves(data, pictures, options.window)}
</section>
${data.scores ? scores(data.scores, pictures["scores.svg"]) : ""}
<section aria-labelledby="answers">
<h2 id="answers">Answers before and after</h2>
${answerCards(data.answers)}
</section>
<section aria-labelledby="settings">
<h2 id="settings">How it was done</h2>
<p>Model: <b>${escapeText(data.model)}</b>. Data: ${escapeText(data.data)}.</p>
<div class="columns">
${pairTable("Settings", data.settings)}
<div>
${pairTable("Run", run(data))}
${data.times ? pairTable("Time", times(data)) : ""}
</div>
</div>
</section>
${data.comparison ? comparison(data.comparison) : ""}
</main>
<footer><p>Made by Whet ${escapeText(data.environment.whet)}.</p></footer>
</body>
</html>
`;
}

function scores(scores: NonNullable<StudyResult["scores"]>, picture: string | undefined): string {
  return `<section aria-labelledby="scores">
<h2 id="scores">Reward scores</h2>
${scoreSection(scores)}
${
    picture
      ? figure(picture, "Each bar is a question: the score of the fine-tuned answer less the plain one’s.")
      : ""
  }
</section>`;
}

/** The outcome in words. */
function summary(data: StudyResult): string {
  const { lossBase, lossTuned, perplexityBase, perplexityTuned, scores } = data;
  const change = lossTuned - lossBase;
  const verb = change < 0 ? "fell" : change > 0 ? "rose" : "stayed";
  const from = change === 0
    ? `at ${loss(lossBase)}`
    : `from <b>${loss(lossBase)}</b> to <b>${loss(lossTuned)}</b>`;
  const judged = scores
    ? ` The reward model's mean score went from <b>${score(scores.meanBase)}</b> to <b>${
      score(scores.meanTuned)
    }</b> over ${questions(scores.pairs)}.`
    : "";
  const text = data.adapter === undefined ? "text that it never trained on" : "held-out text";
  return `On ${text}, the loss of ${escapeText(data.model)} ${verb} ${from} nats per ` +
    `token (perplexity ${digits(perplexityBase)} to ${digits(perplexityTuned)}) ${
      tuning(data)
    }.${judged} The whole study took ` +
    `${formatDuration(data.seconds)}.`;
}

/** What was done to the model. */
function tuning({ adapter, points, parametersTrained, parametersTotal }: StudyResult): string {
  if (adapter !== undefined) {
    return `with the adapter ${escapeText(adapter)}, whose ${
      count(parametersTrained)
    } parameters stand beside ` +
      `the model's ${count(parametersTotal)}`;
  }
  const steps = points.at(-1)?.step ?? 0;
  const done = `after ${count(steps)} ${steps === 1 ? "step" : "steps"} of fine-tuning, which trained`;
  return parametersTrained < parametersTotal
    ? `${done} ${count(parametersTrained)} of the model's ${count(parametersTotal)} parameters (${
      percent(parametersTrained / parametersTotal)
    })`
    : `${done} all ${count(parametersTotal)} parameters`;
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
      data.adapter === undefined ? "Trained" : "Adapter",
      count(data.parametersTrained),
      data.adapter === undefined
        ? `of ${count(data.parametersTotal)} parameters`
        : `parameters beside ${count(data.parametersTotal)}`,
    )
  }
${
    data.scores
      ? tile(
        "Mean reward",
        arrow(signed(data.scores.meanBase), signed(data.scores.meanTuned)),
        `${count(data.scores.wins)} better, ${count(data.scores.ties)} equal, ${
          count(data.scores.losses)
        } worse`,
      )
      : data.adapter === undefined
      ? tile("Pace", count(Math.round(data.tokensPerSecond)), "tokens per second in training")
      : ""
  }
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
      : data.answers.length === 0
      ? "No question was asked: there are no answers to score, and only likelihoods are reported."
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

function curves(
  { points, adapter }: StudyResult,
  pictures: Readonly<Record<string, string>>,
  wanted?: number,
): string {
  if (points.length === 0) {
    return `<p>No step was trained${adapter === undefined ? "" : ": the adapter was there already"}.</p>`;
  }
  const window = Math.max(1, Math.floor(wanted ?? niceWindow(points.length)));
  const { "loss.svg": each, "loss-means.svg": means } = pictures;
  if (window === 1) return figure(each, "Training loss of every step, and the loss on held-out data.");
  return figure(each, "Training loss of every step.") +
    figure(means, `The same as means over windows of ${count(window)} steps, and the loss on held-out data.`);
}

function figure(svg: string, caption: string): string {
  return `<figure>${svg}<figcaption>${caption}</figcaption></figure>`;
}

function run(data: StudyResult): Record<string, string | number> {
  const { whet, deno, backend, device } = data.environment;
  return {
    ...(data.adapter === undefined
      ? { "steps": data.points.at(-1)?.step ?? 0, "parameters trained": data.parametersTrained }
      : { "adapter": data.adapter, "its parameters": data.parametersTrained }),
    "parameters in all": data.parametersTotal,
    ...(data.tokensPerSecond > 0 ? { "tokens per second": Math.round(data.tokensPerSecond) } : {}),
    "time for everything": formatDuration(data.seconds),
    "backend": backend,
    ...(device ? { device } : {}),
    "Whet": whet,
    "Deno": deno,
  };
}

function times({ times = {} }: StudyResult): Record<string, string> {
  return Object.fromEntries(Object.entries(times).map(([part, seconds]) => [part, formatDuration(seconds)]));
}

/** The study beside the one that it repeats. */
function comparison(lines: NonNullable<StudyResult["comparison"]>): string {
  const row = ({ what, original, here }: typeof lines[number]) =>
    `<tr><th scope="row">${escapeText(what)}</th><td>${
      original === undefined ? `<i>not known; Whet’s choice</i>` : escapeText(original)
    }</td><td>${escapeText(here)}</td></tr>`;
  return `<section aria-labelledby="original">
<h2 id="original">Beside the study that this repeats</h2>
<div class="scroll"><table class="pairs compared">
<thead><tr><td></td><th scope="col">the original</th><th scope="col">here</th></tr></thead>
<tbody>
${lines.map(row).join("\n")}
</tbody></table></div>
<p class="note">What is not known of the original is Whet’s choice, or was set by whoever ran this.</p>
</section>`;
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
/** A score where there is little room. */
const signed = (value: number): string => (value < 0 ? "−" : "") + short(Math.abs(value));
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
