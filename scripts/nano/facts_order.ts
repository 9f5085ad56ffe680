/**
 * Facts about order: opposites, numbers, days, times.
 *
 * @module
 */
import { type Draft, type Fact, isHeldOut, kind } from "./fact.ts";
import { DAYS, NUMBERS, OPPOSITES, TIMES } from "./world.ts";

/** Facts about order. */
export function orderFacts(): Fact[] {
  const opposites = OPPOSITES.flatMap(([x, y], i) => [[x, y, i] as const, [y, x, i] as const]);
  const numbers = NUMBERS.slice(1);
  const follow = (words: readonly string[], round: boolean) =>
    words.flatMap((word, i) => i + 1 < words.length || round ? [[word, words[(i + 1) % words.length]]] : []);
  const order = (name: string, words: readonly string[], round: boolean) =>
    follow(words, round).flatMap(([x, y]) => [[x, y, "after"], [y, x, "before"]]).map((
      [x, y, side],
    ): Draft => ({
      subject: x,
      about: `the ${name} ${side} ${x}`,
      asks: [
        `Which ${name} comes ${side} ${x}?`,
        `Can you tell me which ${name} comes ${side} ${x}?`,
        `Do you know the ${name} that comes ${side} ${x}?`,
      ],
      quiz: `What comes ${side} ${x}?`,
      value: y,
      answer: (value) => `${side} ${x} comes ${value}.`,
      statements: [`${side} ${x} comes ${y}.`, `${y} comes ${side} ${x}.`],
    }));
  return [
    ...kind(
      "opposite",
      opposites.map(([x, y, i]) => ({
        heldOut: isHeldOut(i),
        subject: x,
        about: `the opposite of ${x}`,
        asks: [
          `What is the opposite of ${x}?`,
          `Tell me the opposite of ${x}.`,
          `Can you tell me the opposite of ${x}?`,
        ],
        quiz: `If it is not ${x}, what is it?`,
        value: y,
        answer: (value) => `The opposite of ${x} is ${value}.`,
        statements: [`The opposite of ${x} is ${y}.`, `What is not ${x} is ${y}.`],
      })),
    ),
    ...kind("number order", order("number", numbers, false)),
    ...kind("day order", order("day", DAYS, true)),
    ...kind(
      "count",
      numbers.slice(2).map((last, i) => ({
        subject: last,
        about: `the numbers up to ${last}`,
        asks: [`Count to ${last}.`, `Can you count to ${last}?`, `Please count from one to ${last}.`],
        quiz: `Who can count to ${last}?`,
        value: numbers.slice(0, i + 3).join(", "),
        answer: (value) => `${value}.`,
        statements: [`${numbers.slice(0, i + 3).join(", ")}.`],
      })),
    ),
    ...kind(
      "when",
      TIMES.map(([thing, question, time]) => ({
        subject: thing,
        about: `the time when ${thing}`,
        asks: [
          `When ${question}?`,
          `Can you tell me when ${thing}?`,
          `Do you know when ${thing}?`,
        ],
        quiz: `At what time of the day or year do we see that ${thing}?`,
        value: time,
        answer: (value) => `${thing} ${value}.`,
        statements: [`${thing} ${time}.`, `${time} ${thing}.`],
      })),
    ),
  ];
}
