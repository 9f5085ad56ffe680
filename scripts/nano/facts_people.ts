/**
 * Facts about people: their work, what to wear, what helps when they feel bad.
 *
 * @module
 */
import { type Fact, kind } from "./fact.ts";
import { a, prose, third } from "./grammar.ts";
import { CLOTHES, FEELINGS, JOBS } from "./world.ts";

/** Facts about people. */
export function peopleFacts(): Fact[] {
  return [
    ...kind(
      "who",
      JOBS.map(([job, task, place]) => ({
        subject: job,
        about: `how people ${task}`,
        asks: [
          `Who ${third(task)}?`,
          `Can you tell me who ${third(task)}?`,
          `Do you know who ${third(task)}?`,
        ],
        quiz: `Who is it that ${third(task)}?`,
        value: job,
        answer: (value) => `${a(value)} ${third(task)}.`,
        statements: [`${a(job)} ${third(task)}.`, `The ${job} ${third(task)}.`],
        more: `You can find ${a(job)} ${place}.`,
      })),
    ),
    ...kind(
      "job",
      JOBS.map(([job, task, place]) => ({
        subject: job,
        about: `the work of ${a(job)}`,
        asks: [
          `What does ${a(job)} do?`,
          `What is the work of ${a(job)}?`,
          `Can you tell me what ${a(job)} does?`,
        ],
        quiz: `What does the ${job} do?`,
        value: task,
        answer: (value) => `${a(job)} ${third(value)}.`,
        statements: [`${a(job)} ${third(task)}.`, `To ${task} is the work of ${a(job)}.`],
        more: `You can find ${a(job)} ${place}.`,
      })),
    ),
    ...kind(
      "wear",
      CLOTHES.map(([when, clothes]) => ({
        subject: when,
        about: `what to wear when ${when}`,
        asks: [
          `What should I wear when ${when.replace("you go", "I go")}?`,
          `Can you tell me what to wear when ${when.replace("you go", "I go")}?`,
        ],
        quiz: `What is good to wear when ${when}?`,
        value: clothes,
        answer: (value) => `You should wear ${value} when ${when}.`,
        statements: [`You should wear ${clothes} when ${when}.`, `When ${when}, wear ${clothes}.`],
      })),
    ),
    ...kind(
      "feeling",
      FEELINGS.map(([feeling, care, help]) => ({
        subject: feeling,
        about: `people who feel ${feeling}`,
        asks: [
          `I feel ${feeling}.`,
          `I am ${feeling}. What should I do?`,
          `What can I do when I am ${feeling}?`,
        ],
        quiz: `What helps when you are ${feeling}?`,
        value: help,
        answer: (value) => prose(care, value),
        statements: [
          `When you are ${feeling}, ${help}.`,
          `If you feel ${feeling}, ${help}.`,
          prose(`"I feel ${feeling},"`).slice(0, -1) + ` said a child. "${prose(care, help)}" said a friend.`,
        ],
      })),
    ),
  ];
}
