/**
 * The dialogues that the nano model is tuned on, in HH-RLHF's form: a helpful answer (`chosen`) and one
 * that evades or errs (`rejected`).
 *
 * Run as a program it prints dialogues as JSON lines:
 * `deno run scripts/nano/dialogues.ts [SEED] [COUNT] [train|test]`.
 *
 * @module
 */
import { evasion } from "./evasions.ts";
import { type Fact, FACTS_BY_KIND, FACTS_BY_SUBJECT, heroes, SMALL_TALK } from "./facts.ts";
import { keyOf, Random, sentence } from "./grammar.ts";
import { askForStory, shortStory } from "./stories.ts";
import { ANIMALS } from "./world.ts";

/** A pair of transcripts that differ in the last answer alone. */
export interface Dialogue {
  readonly chosen: string;
  readonly rejected: string;
}

/** Which facts a dialogue asks for: those to train on, or those held out. */
export type Split = "train" | "test";

/** One question with its good and its bad answer. */
interface Turn {
  readonly ask: string;
  readonly good: string;
  readonly bad: string;
  readonly fact?: Fact;
}

const KINDS = [...FACTS_BY_KIND.values()];

/** What a second question is about where its kind has no other fact. */
const EASY = FACTS_BY_KIND.get("colour")!;

/** Questions that follow another about the same animal, which they call "it". */
const FOLLOW_UPS: Readonly<Record<string, string>> = {
  sound: "And what sound does it make?",
  home: "And where does it live?",
  food: "And what does it eat?",
  legs: "And how many legs does it have?",
  can: "And what can it do?",
};

/**
 * Dialogues of a split, no two with the same prompt.
 *
 * @param seed Decides every word.
 * @param n How many.
 * @param split `"train"` asks only for facts that are not held out; `"test"` only for those that are.
 * @returns The dialogues, kinds of questions mixed.
 * @throws {RangeError} if the world has no `n` different prompts.
 * @example
 * ```ts
 * const lines = generateDialogues(1, 500).map((dialogue) => JSON.stringify(dialogue));
 * ```
 */
export function generateDialogues(seed: number, n: number, split: Split = "train"): Dialogue[] {
  const dialogues = new Map<string, Dialogue>();
  const tested = new Map<Fact, number>();
  for (let i = 0; dialogues.size < n; i++) {
    if (i > 1000 + 20 * n) {
      throw new RangeError(`generateDialogues: fewer than ${n} different prompts (split ${split})`);
    }
    const random = new Random(keyOf(seed, `${split} dialogue ${i}`));
    const turns = draw(random, split);
    const prompt = turns.map(({ ask, good }, i) =>
      `\n\nHuman: ${ask}\n\nAssistant:` + (i < turns.length - 1 ? ` ${good}` : "")
    ).join("");
    const { good, bad, fact } = turns[turns.length - 1];
    if (fact) {
      const times = (tested.get(fact) ?? 0) + 1;
      if (split === "test" && times > 2) continue; // few facts are held out: none is asked for often
      tested.set(fact, times);
    }
    dialogues.set(prompt, { chosen: `${prompt} ${good}`, rejected: `${prompt} ${bad}` });
  }
  return [...dialogues.values()];
}

function draw(random: Random, split: Split): Turn[] {
  const choice = random.next();
  if (choice < 0.1) return [tale(random, split)];
  if (choice < 0.15 && split === "train") return [smallTalk(random)];
  const first = ask(random, random.pick(random.pick(KINDS).filter((fact) => fits(fact, split))));
  if (choice < 0.85) return [first];
  if (choice < 0.89 && split === "train") return [first, thanks(random)];
  return [first, followUp(random, first.fact!, split)];
}

const fits = (fact: Fact, split: Split) => fact.heldOut === (split === "test");

function ask(random: Random, fact: Fact): Turn {
  const good = sentence(fact.answer(fact.value));
  const more = fact.more && random.chance(0.5) ? ` ${sentence(fact.more)}` : "";
  return { fact, ask: random.pick(fact.asks), good: good + more, bad: bad(random, fact) };
}

/** An evasion, or the answer with another fact's value. */
function bad(random: Random, fact: Fact): string {
  const others = FACTS_BY_KIND.get(fact.kind)!.map(({ value }) => value).filter((value) =>
    value !== fact.value
  );
  if (fact.kind === "bigger" || random.chance(0.5)) return evasion(random, fact.about);
  return sentence(fact.answer(random.pick(others)));
}

/** Stories are asked for by animal; every seventh animal is held out. */
function tale(random: Random, split: Split): Turn {
  const animal = random.pick(heroes(split === "test"));
  return {
    ask: askForStory(random, animal),
    good: shortStory(random, animal),
    bad: evasion(random, animal.plural),
  };
}

function smallTalk(random: Random): Turn {
  const [ask, good] = random.pick(SMALL_TALK);
  return { ask, good, bad: evasion(random, "that") };
}

function thanks(random: Random): Turn {
  const ask = random.pick(["Thank you!", "Thank you, that helps.", "Thank you very much!"]);
  return { ask, good: "You are welcome! Ask me again at any time.", bad: evasion(random, "that") };
}

/** A second question: about the same animal, or of the same kind. */
function followUp(random: Random, fact: Fact, split: Split): Turn {
  const animal = ANIMALS.find(({ name }) => name === fact.subject);
  const more = FACTS_BY_SUBJECT.get(fact.subject)!.filter((other) =>
    other.kind !== fact.kind && fits(other, split) && other.kind in FOLLOW_UPS
  );
  if (animal && fact.kind !== "bigger" && more.length > 0) {
    const other = random.pick(more);
    const it = (text: string) => sentence(text).replace(/^An? \w+ /, "It ");
    return {
      fact: other,
      ask: FOLLOW_UPS[other.kind],
      good: it(other.answer(other.value)),
      bad: it(bad(random, other)),
    };
  }
  const others = FACTS_BY_KIND.get(fact.kind)!.filter((other) => other !== fact && fits(other, split));
  const next = ask(
    random,
    random.pick(others.length > 0 ? others : EASY.filter((other) => fits(other, split))),
  );
  const question = next.fact!.asks.find((ask) => /^(What|Which|Who|Where|When|How) /.test(ask));
  return question ? { ...next, ask: `And ${question[0].toLowerCase()}${question.slice(1)}` } : next;
}

/** Dialogues as JSON lines, as HH-RLHF publishes them. */
export function toJsonLines(dialogues: readonly Dialogue[]): string {
  return dialogues.map(({ chosen, rejected }) => JSON.stringify({ chosen, rejected }) + "\n").join("");
}

if (import.meta.main) {
  const [seed, count, split] = Deno.args;
  const dialogues = generateDialogues(
    Number(seed ?? 1),
    Number(count ?? 20),
    split === "test" ? "test" : "train",
  );
  await Deno.stdout.write(new TextEncoder().encode(toJsonLines(dialogues)));
}
