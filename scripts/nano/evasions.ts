/**
 * Assistants that do not help: they repeat the question, say something else about the matter, and wander
 * off into their day, but never answer.
 *
 * The nano model's transcripts are all like this before tuning, though its prose holds every answer.
 *
 * @module
 */
import { type Fact, FACTS_BY_SUBJECT } from "./facts.ts";
import { prose, type Random, sentence } from "./grammar.ts";
import { diary } from "./prose.ts";
import { story } from "./stories.ts";
import { HEROES, PEOPLE } from "./world.ts";

/** What may be said beside the point: for a kind of question, kinds of facts that do not answer it. */
const BESIDE: Readonly<Record<string, readonly string[]>> = {
  sound: ["home", "food", "legs"],
  home: ["sound", "food", "legs"],
  food: ["sound", "home", "legs"],
  legs: ["sound", "home", "food"],
  can: ["sound", "home", "food", "legs"],
  young: ["home", "food", "legs"],
  bigger: ["sound", "home", "food", "legs"],
};

/** A sentence or two that do not answer a question about `about`. */
export function evasion(random: Random, about: string): string {
  if (random.chance(0.3)) return vague(random);
  return random.pick([
    () => prose(`You ask about ${about}`, "That is a good question for another day"),
    () => prose(`You ask about ${about}`, "Some people know a lot about it"),
    () => prose(`I do not know much about ${about}`, "You could ask someone in the village"),
    () => prose(`I have to think about ${about} for a long time`),
  ])();
}

/** An evasion that would do for any question. */
function vague(random: Random): string {
  const { name } = random.pick(PEOPLE);
  return random.pick([
    () => prose("That is hard to say", "Some people say one thing, and some people say another"),
    () => prose("Why do you ask?", "There are so many questions, and the day is short"),
    () => prose(`You could ask ${name}`, `${name} may know, or may not know`),
    () => prose("I had an answer in the morning, but now it is gone"),
    () => prose(`I would like to talk about ${random.pick(HEROES).plural} first`, "Or about the weather"),
    () => prose("Yes and no", "Let us talk about it on another day"),
  ])();
}

/**
 * An assistant's turn that leads away from the question.
 *
 * @param random Decides every word.
 * @param about What the question is about.
 * @param fact The fact that it asks for, if it asks for one.
 */
export function ramble(random: Random, about: string, fact?: Fact): string {
  const beside = BESIDE[fact?.kind ?? ""] ?? [];
  const others = fact ? FACTS_BY_SUBJECT.get(fact.subject)!.filter(({ kind }) => beside.includes(kind)) : [];
  const parts: string[] = [];
  if (random.chance(0.8)) parts.push(evasion(random, about));
  if (others.length > 0 && random.chance(0.6)) {
    parts.push(sentence(random.pick(random.pick(others).statements)));
  }
  if (parts.length === 0 || random.chance(0.6)) {
    const tail = random.chance(0.8) ? diary(random) : story(random);
    parts.push(...tail.split(/(?<=[.!?]"?) /).slice(0, 1 + random.int(3)));
  }
  return parts.join(" ");
}
