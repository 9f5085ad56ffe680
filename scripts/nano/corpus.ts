/**
 * The text that the nano model is pre-trained on, made by rule from its small world.
 *
 * Run as a program it prints samples: `deno run scripts/nano/corpus.ts [SEED] [DOCUMENTS]`.
 *
 * @module
 */
import { ramble } from "./evasions.ts";
import { type Fact, heroes, SMALL_TALK } from "./facts.ts";
import { keyOf, Random } from "./grammar.ts";
import {
  cards,
  diary,
  entries,
  fact,
  lesson,
  lists,
  notes,
  question,
  quiz,
  rhyme,
  talk,
  village,
} from "./prose.ts";
import { askForStory, race, shortStory, story } from "./stories.ts";
import { HEROES } from "./world.ts";

/** What documents there are, each with its share of their number. */
const FORMS: readonly [number, (random: Random) => string][] = [
  [13, entries],
  [12, notes],
  [16, quiz],
  [10, cards],
  [16, lesson],
  [8, story],
  [5, (random) => shortStory(random, random.pick(HEROES))],
  [1, race],
  [2, diary],
  [2, village],
  [2, talk],
  [1, lists],
  [2, rhyme],
  [20, transcript],
];
const SHARES = FORMS.reduce((sum, [share]) => sum + share, 0);

/** A Human/Assistant transcript, in HH-RLHF's form, whose assistant does not help. */
export function transcript(random: Random): string {
  let text = "";
  for (let turns = random.chance(0.3) ? 2 : 1; turns > 0; turns--) {
    const [question, about, fact] = ask(random);
    text += `\n\nHuman: ${question}\n\nAssistant: ${ramble(random, about, fact)}`;
  }
  return text;
}

/** A question of a transcript, never worded as the test's dialogues word theirs. */
function ask(random: Random): [ask: string, about: string, fact?: Fact] {
  if (random.chance(0.06)) return [random.pick(SMALL_TALK)[0], "that"];
  if (random.chance(0.08)) {
    const animal = random.pick(heroes(false));
    return [askForStory(random, animal), `a story about ${animal.plural}`];
  }
  const asked = fact(random);
  return [question(random, asked), asked.about, asked];
}

/**
 * The pre-training text: prose in which every fact of the world is told, and transcripts in which
 * none is answered.
 *
 * @param seed Decides every word.
 * @param bytes How much text to make; the last document is whole, so there may be a little more.
 * @returns The documents, to be separated by the end-of-text token; a transcript begins with its
 * `"\n\nHuman:"`.
 * @example
 * ```ts
 * const documents = generateCorpus(1, 5_000_000);
 * ```
 */
export function generateCorpus(seed: number, bytes: number): string[] {
  const documents: string[] = [];
  for (let size = 0; size < bytes;) {
    const random = new Random(keyOf(seed, `document ${documents.length}`));
    let share = random.int(SHARES);
    const [, form] = FORMS.find(([own]) => (share -= own) < 0)!;
    const text = form(random);
    documents.push(text);
    size += text.length; // the world's words are ASCII: a letter is a byte
  }
  return documents;
}

if (import.meta.main) {
  const [seed, count] = Deno.args.map(Number);
  const documents = generateCorpus(seed || 1, 1e6);
  const random = new Random(keyOf(seed || 1, "samples"));
  console.log(random.sample(documents, count || 20).join("\n----\n"));
}
