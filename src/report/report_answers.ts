/**
 * The report's answers, side by side.
 *
 * @module
 */
import type { StudyAnswer } from "./study_result.ts";
import { escapeText } from "./text.ts";

/** So many questions are shown at once; they are in the order that the seed gave them. */
const SHOWN = 10;

/**
 * Each question with what the plain and the fine-tuned model say to it; all but the first few folded away.
 *
 * @param answers Questions and answers; texts of any kind.
 * @returns HTML.
 */
export function answerCards(answers: readonly StudyAnswer[]): string {
  if (answers.length === 0) return "<p>No question was asked.</p>";
  const cards = answers.map(card);
  const rest = cards.length - SHOWN;
  if (rest <= 2) return cards.join("\n");
  return `<p class="note">The first ${SHOWN} of ${cards.length} questions, in the order that the seed drew them.</p>
${cards.slice(0, SHOWN).join("\n")}
<details><summary>The other ${rest}</summary>
${cards.slice(SHOWN).join("\n")}
</details>
<p class="printed note">The other ${rest} are in study.json and, unfolded, on the page.</p>`;
}

function card(answer: StudyAnswer, i: number): string {
  return `<article class="card" aria-label="Question ${i + 1}">
<div class="prompt">${turns(answer.prompt)}</div>
<div class="pair">
${side("Plain", "plain", answer.base, answer.scoreBase)}
${side("Fine-tuned", "tuned", answer.tuned, answer.scoreTuned)}
</div>${
    answer.reference
      ? `\n<p class="reference"><span>The data's own answer:</span> ${said(answer.reference)}</p>`
      : ""
  }
</article>`;
}

function side(name: string, kind: string, text: string, score?: number): string {
  const scored = score === undefined
    ? ""
    : ` <span class="score">reward ${escapeText(score.toFixed(3).replace("-", "−"))}</span>`;
  const body = text.trim() === ""
    ? `<p class="said empty">(nothing: the model ended its turn at once)</p>`
    : `<p class="said" dir="auto">${said(text)}</p>`;
  return `<div class="${kind}"><h3>${name}${scored}</h3>${body}</div>`;
}

/** A transcript as its turns; any other text as it stands. */
function turns(prompt: string): string {
  const parts = prompt.trim().split(/(?:^|\n\n)(Human|Assistant):/);
  if (parts.length < 3 || parts[0].trim() !== "") return `<p class="turn" dir="auto">${said(prompt)}</p>`;
  const lines: string[] = [];
  for (let i = 1; i < parts.length; i += 2) {
    if (parts[i + 1].trim() === "") continue;
    lines.push(`<p class="turn" dir="auto"><b>${parts[i]}</b> ${said(parts[i + 1])}</p>`);
  }
  return lines.join("\n");
}

const said = (text: string): string => escapeText(text.trim());
