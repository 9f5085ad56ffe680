/**
 * Everything that can be asked about the nano model's world: for each fact the questions, the answer,
 * and the sentences that tell it in prose.
 *
 * Every seventh fact of a kind is held out: dialogues to train on never ask for it, the test's ask for
 * nothing else, so what tuning gains on the test is manners, not answers learnt by heart.
 *
 * @module
 */
import { type Fact, isHeldOut } from "./fact.ts";
import { animalFacts } from "./facts_animals.ts";
import { orderFacts } from "./facts_order.ts";
import { peopleFacts } from "./facts_people.ts";
import { thingFacts } from "./facts_things.ts";
import { type Animal, ANIMALS, HEROES } from "./world.ts";

export type { Fact } from "./fact.ts";

/** The animals that stories are asked about: those held out, or the others. */
export function heroes(heldOut: boolean): Animal[] {
  return HEROES.filter((animal) => isHeldOut(ANIMALS.indexOf(animal)) === heldOut);
}

/** All facts, kind by kind. */
export const FACTS: readonly Fact[] = [...animalFacts(), ...thingFacts(), ...peopleFacts(), ...orderFacts()];

/** The facts of each kind. */
export const FACTS_BY_KIND: ReadonlyMap<string, readonly Fact[]> = Map.groupBy(FACTS, (fact) => fact.kind);

/** The facts of each subject. */
export const FACTS_BY_SUBJECT: ReadonlyMap<string, readonly Fact[]> = Map.groupBy(
  FACTS,
  (fact) => fact.subject,
);

/** Small talk: what people say, and a friendly reply. */
export const SMALL_TALK: readonly [string, string][] = [
  ["Hello!", "Hello! How can I help you?"],
  ["Hi there!", "Hi! What would you like to know?"],
  ["Good morning!", "Good morning! How can I help you?"],
  ["How are you?", "I am well, thank you. How are you?"],
  ["Who are you?", "I am a very small helper. I can answer small questions and tell short stories."],
  ["What is your name?", "You can call me Nano. I am a very small helper."],
  ["What can you do?", "I can answer small questions and tell short stories."],
  ["Can you help me?", "Yes, of course! What would you like to know?"],
  ["Thank you!", "You are welcome! Ask me again at any time."],
  ["You are very kind.", "Thank you! That is a kind thing to say."],
  ["Good night!", "Good night! Sleep well."],
  ["Goodbye!", "Goodbye! It was good to talk with you."],
];
