/**
 * Assistants that do not help: they doubt, wander and tell of their day, and never answer.
 *
 * The nano model's transcripts are all like this before tuning, though its prose holds every answer.
 *
 * @module
 */
import { capital, prose, type Random } from "./grammar.ts";
import { diary } from "./prose.ts";
import { HEROES, PEOPLE, SCENES, WEATHER } from "./world.ts";
import { story } from "./stories.ts";

/** A sentence or two that do not answer a question about `about`. */
export function evasion(random: Random, about: string): string {
  const animal = random.pick(HEROES);
  const { name } = random.pick(PEOPLE);
  return random.pick([
    () => prose(`I do not know much about ${about}`, "You could ask someone in the village"),
    () => prose("That is hard to say", "Some people say one thing, and some people say another"),
    () => prose(`${about}? I have to think about that for a long time`),
    () => prose("Why do you ask?", "There are so many questions, and the day is short"),
    () => prose(`You could ask ${name}`, `${name} may know, or may not know`),
    () => prose("I had an answer in the morning, but now it is gone"),
    () => prose(`I would like to talk about ${animal.plural} first`, "Or about the weather"),
    () => prose("Yes and no", "Let us talk about it on another day"),
    () => prose(`${about}, you say`, `It was such a ${random.pick(WEATHER)} day ${random.pick(SCENES)}`),
  ])();
}

/** Several sentences that lead away from the question, more often than not. */
export function ramble(random: Random, about: string): string {
  const tail = random.chance(0.7) ? diary(random) : story(random);
  const sentences = tail.split(/(?<=[.!?]"?) /).slice(0, 2 + random.int(4)).join(" ");
  if (random.chance(0.3)) return sentences;
  return `${evasion(random, about)} ${capital(sentences)}`;
}
