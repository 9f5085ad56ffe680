import { assert, assertEquals, assertThrows } from "@std/assert";
import { generateCorpus } from "../scripts/nano/corpus.ts";
import { type Dialogue, generateDialogues, toJsonLines } from "../scripts/nano/dialogues.ts";
import { FACTS, FACTS_BY_KIND } from "../scripts/nano/facts.ts";
import { a, capital, keyOf, list, Random, sentence, third } from "../scripts/nano/grammar.ts";

const BYTES = 1_500_000;
const corpus = generateCorpus(7, BYTES);
const training = generateDialogues(7, 450);
const test = generateDialogues(7, 60, "test");

const promptOf = (text: string) => text.slice(0, text.lastIndexOf("\n\nAssistant:"));
const answerOf = (text: string) => text.slice(text.lastIndexOf("\n\nAssistant:") + "\n\nAssistant:".length);
const wordsOf = (text: string) => text.toLowerCase().match(/[a-z]+/g) ?? [];

/** What no sentence of correct English has. */
const BROKEN: readonly [string, RegExp][] = [
  ["an empty slot", /undefined|null|NaN|\[object|\$\{/],
  ["two spaces", / {2}/],
  ["a space before a stop", / [.,!?;:]/],
  ["two stops", /[.,!?]{2}/],
  ["a before a vowel", /\b[Aa] [aeiou]/],
  ["an before a consonant", /\b[Aa]n [^aeiou]/],
  ["a word said twice", /\b(a|an|the|is|to|in|on|and|of) \1\b/i],
  ["a sentence that begins small", /[.!?] [a-z]/],
  ["a space at an end of line", /[ \t]$/m],
  ["anything but printable ASCII", /[^\n\x20-\x7e]/],
];

Deno.test("the same seed gives the same corpus and dialogues, another seed others", () => {
  assertEquals(generateCorpus(7, 20_000), corpus.slice(0, generateCorpus(7, 20_000).length));
  assert(generateCorpus(8, 20_000)[0] !== corpus[0] || generateCorpus(8, 20_000)[1] !== corpus[1]);
  assertEquals(generateDialogues(7, 60, "test"), test);
  assert(toJsonLines(generateDialogues(8, 20)) !== toJsonLines(generateDialogues(7, 20)));
});

Deno.test("the corpus is as long as asked for, in documents that fit a small window", () => {
  const size = corpus.reduce((sum, text) => sum + text.length, 0);
  assert(size >= BYTES && size < BYTES + 2000, `${size} bytes`);
  for (const text of corpus) assert(text.length > 0 && text.length < 1500, text);
  assertEquals(generateCorpus(7, 0), []);
});

Deno.test("no text has a broken slot, article, stop or capital", () => {
  const texts = [...corpus, ...[...training, ...test].flatMap(({ chosen, rejected }) => [chosen, rejected])];
  for (const text of texts) {
    for (const [what, pattern] of BROKEN) assert(!pattern.test(text), `${what}: ${JSON.stringify(text)}`);
    assert(/[.!?]"?$/.test(text), `does not end: ${JSON.stringify(text.slice(-80))}`);
  }
});

Deno.test("the world's words are a few hundred, and the corpus has every word of the dialogues", () => {
  const counts = new Map<string, number>();
  for (const text of corpus) for (const word of wordsOf(text)) counts.set(word, (counts.get(word) ?? 0) + 1);
  assert(counts.size > 400 && counts.size < 800, `${counts.size} words`);
  for (const { chosen, rejected } of [...training, ...test]) {
    for (const word of wordsOf(chosen + rejected)) assert(counts.has(word), `the corpus never says ${word}`);
  }
});

Deno.test("dialogues are HH-RLHF transcripts whose two answers differ after one prompt", () => {
  for (const { chosen, rejected } of [...training, ...test]) {
    assert(/^(\n\nHuman: \S[^\n]*\n\nAssistant: \S[^\n]*)+$/.test(chosen), JSON.stringify(chosen));
    assert(/^(\n\nHuman: \S[^\n]*\n\nAssistant: \S[^\n]*)+$/.test(rejected), JSON.stringify(rejected));
    assertEquals(promptOf(chosen), promptOf(rejected));
    assert(answerOf(chosen) !== answerOf(rejected), chosen);
    const sentences = answerOf(chosen).split(/[.!?]/).filter((part) => part.trim() !== "").length;
    assert(sentences <= 3, `${sentences} sentences: ${chosen}`);
  }
  const lines = toJsonLines(training).trimEnd().split("\n");
  assertEquals(lines.map((line) => JSON.parse(line) as Dialogue), training);
});

Deno.test("prompts of training and test are disjoint, and no test question stands in the corpus", () => {
  const prompts = training.map(({ chosen }) => promptOf(chosen));
  assertEquals(new Set(prompts).size, prompts.length);
  const known = new Set(prompts);
  for (const { chosen } of test) assert(!known.has(promptOf(chosen)), chosen);
  const asked = new Set(
    [...corpus, ...prompts].flatMap((text) =>
      [...text.matchAll(/Human: ([^\n]+)/g)].map(([, question]) => question)
    ),
  );
  for (const { chosen } of test) {
    const question = /Human: ([^\n]+)(?=\n\nAssistant: [^\n]+$)/.exec(chosen)![1];
    if (!question.startsWith("And ")) assert(!asked.has(question), question);
  }
});

Deno.test("training never asks for a fact that is held out, nor answers with it", () => {
  const held = FACTS.filter((fact) => fact.heldOut);
  const questions = new Set(held.flatMap(({ asks }) => asks));
  // "The whale is bigger." answers many questions, held out or not.
  const own = held.filter(({ kind }) => kind !== "bigger");
  const answers = new Set(own.map((fact) => sentence(fact.answer(fact.value))));
  for (const { chosen } of training) {
    for (const [, question] of chosen.matchAll(/Human: ([^\n]+)/g)) {
      assert(!questions.has(question), question);
    }
    for (const [, answer] of chosen.matchAll(/Assistant: ([^\n]+)/g)) assert(!answers.has(answer), answer);
  }
});

Deno.test("every kind of question has held-out facts, and all facts are told in prose", () => {
  const text = generateCorpus(7, 3_000_000).filter((text) => !text.includes("Human:")).join("\n");
  for (const [kind, facts] of FACTS_BY_KIND) {
    assert(facts.some(({ heldOut }) => heldOut), `${kind}: nothing is held out`);
    for (const fact of facts) {
      const forms = [sentence(fact.answer(fact.value)), ...fact.statements.map(sentence)];
      const told = forms.some((form) => text.includes(form.replace(/\.$/, "")));
      assert(told, `never told: ${forms[0]}`);
    }
  }
});

Deno.test("questions of one fact are never questions of another with another answer", () => {
  const values = new Map<string, string>();
  for (const { asks, quiz, kind, value } of FACTS) {
    for (const question of [...asks, quiz]) {
      const other = values.get(question);
      assert(
        other === undefined || other === `${kind} ${value}`,
        `${question}: ${other} or ${kind} ${value}`,
      );
      values.set(question, `${kind} ${value}`);
    }
  }
});

Deno.test("asking for more dialogues than there are prompts is an error, not an endless loop", () => {
  assertThrows(() => generateDialogues(1, 3000, "test"), RangeError, "fewer than 3000");
});

Deno.test("words take their articles, endings and capitals", () => {
  assertEquals([a("owl"), a("cow")], ["an owl", "a cow"]);
  assertEquals(["bake bread", "fly", "catch fish", "play", "go home"].map(third), [
    "bakes bread",
    "flies",
    "catches fish",
    "plays",
    "goes home",
  ]);
  assertEquals([capital('"who is it?"'), sentence("it rains"), sentence('"Yes!"')], [
    '"Who is it?"',
    "It rains.",
    '"Yes!"',
  ]);
  assertEquals([list([]), list(["x"]), list(["x", "y", "z"])], ["", "x", "x, y and z"]);
});

Deno.test("a key decides a stream of choices", () => {
  const draw = (key: [number, number]) =>
    Array.from({ length: 5 }, ((random) => () => random.int(1000))(new Random(key)));
  assertEquals(draw(keyOf(1, "a")), draw(keyOf(1, "a")));
  assert(draw(keyOf(1, "a")).join() !== draw(keyOf(1, "b")).join());
  const random = new Random([1, 2]);
  assertEquals(random.sample([1, 2, 3], 5).toSorted(), [1, 2, 3]);
  assertThrows(() => random.pick([]), RangeError);
});
