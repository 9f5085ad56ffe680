/**
 * Everything that can be asked about the nano model's world: for each fact the questions, the answer,
 * and the sentences that tell it in prose.
 *
 * Every seventh fact of a kind is held out: dialogues to train on never ask for it, the test's ask for
 * nothing else, so what tuning gains on the test is manners, not answers learnt by heart.
 *
 * @module
 */
import { a, list, prose, third } from "./grammar.ts";
import {
  type Animal,
  ANIMALS,
  CLOTHES,
  COLOURS,
  DAYS,
  FEELINGS,
  GROUPS,
  HEROES,
  JOBS,
  MATERIALS,
  NUMBERS,
  OPPOSITES,
  PLACES,
  TIMES,
  TOOLS,
  YOUNG,
} from "./world.ts";

/** A fact of the world and the ways to speak of it. */
export interface Fact {
  /** The kind of question that asks for it. */
  readonly kind: string;
  /** Whom or what it is about, one word for all facts of one subject: "cow", "baker". */
  readonly subject: string;
  /** What the question is about: "cows", "the colour of snow". */
  readonly about: string;
  /** How a dialogue asks for it: whole sentences. */
  readonly asks: readonly string[];
  /** How prose asks for it, worded otherwise than any dialogue does: whole sentences. */
  readonly quiz: string;
  /** What answers the question, in its kind's own words; equal for facts with equal answers. */
  readonly value: string;
  /** The answer with a value in its place; right for this fact's own value. */
  answer(value: string): string;
  /** Sentences that tell the fact in prose. */
  readonly statements: readonly string[];
  /** What a friendly answer may add; "" for nothing. */
  readonly more: string;
  /** Whether only the test asks for it. */
  readonly heldOut: boolean;
}

type Draft = Partial<Fact> & Pick<Fact, "subject" | "about" | "asks" | "quiz" | "value" | "answer">;

function kind(name: string, drafts: readonly Draft[]): Fact[] {
  return drafts.map((draft, i) => ({
    kind: name,
    statements: [],
    more: "",
    ...draft,
    heldOut: draft.heldOut ?? isHeldOut(i),
  }));
}

/** Whether the `i`-th subject of a table is left to the test. */
export function isHeldOut(i: number): boolean {
  return i % 7 === 3;
}

const it = (animal: { home: string; food: string }) => `It lives ${animal.home} and eats ${animal.food}.`;

/** The animals that stories are asked about: those held out, or the others. */
export function heroes(heldOut: boolean): Animal[] {
  return HEROES.filter((animal) => isHeldOut(ANIMALS.indexOf(animal)) === heldOut);
}

function animalFacts(): Fact[] {
  const loud = ANIMALS.filter((animal) => animal.sound !== "");
  return [
    ...kind(
      "sound",
      loud.map(({ name, plural, sound, home }) => ({
        subject: name,
        about: `the sound of ${plural}`,
        asks: [
          `What sound does ${a(name)} make?`,
          `What does ${a(name)} say?`,
          `Can you tell me the sound of ${a(name)}?`,
        ],
        quiz: `What does the ${name} say?`,
        value: sound,
        answer: (value) => `${a(name)} says ${value}.`,
        statements: [`${plural} say ${sound}.`, `The ${name} says ${sound}.`, `${a(name)} says ${sound}.`],
        more: `It lives ${home}.`,
      })),
    ),
    ...kind(
      "home",
      ANIMALS.map(({ name, plural, home, food }) => ({
        subject: name,
        about: `the home of ${plural}`,
        asks: [
          `Where does ${a(name)} live?`,
          `Where do ${plural} live?`,
          `Where can I find ${a(name)}?`,
        ],
        quiz: `Where is the home of the ${name}?`,
        value: home,
        answer: (value) => `${a(name)} lives ${value}.`,
        statements: [`${plural} live ${home}.`, `The ${name} lives ${home}.`, `${a(name)} lives ${home}.`],
        more: `It eats ${food}.`,
      })),
    ),
    ...kind(
      "food",
      ANIMALS.map(({ name, plural, home, food }) => ({
        subject: name,
        about: `the food of ${plural}`,
        asks: [
          `What does ${a(name)} eat?`,
          `What do ${plural} eat?`,
          `What food does ${a(name)} like?`,
        ],
        quiz: `What is the food of the ${name}?`,
        value: food,
        answer: (value) => `${a(name)} eats ${value}.`,
        statements: [`${plural} eat ${food}.`, `The ${name} eats ${food}.`, `${a(name)} eats ${food}.`],
        more: `It lives ${home}.`,
      })),
    ),
    ...kind(
      "legs",
      ANIMALS.map(({ name, plural, legs, can }) => ({
        subject: name,
        about: `the legs of ${plural}`,
        asks: [
          `How many legs does ${a(name)} have?`,
          `How many legs do ${plural} have?`,
          `Can you tell me how many legs ${a(name)} has?`,
        ],
        quiz: `How many legs has the ${name}?`,
        value: legs,
        answer: (value) => `${a(name)} has ${value} legs.`,
        statements: [`${plural} have ${legs} legs.`, `${a(name)} has ${legs} legs.`],
        more: `It can ${can}.`,
      })),
    ),
    ...kind(
      "can",
      ANIMALS.map(({ name, plural, can, home }) => ({
        subject: name,
        about: `what ${plural} can do`,
        asks: [
          `What can ${a(name)} do?`,
          `What can ${plural} do?`,
          `Can you tell me what ${a(name)} can do?`,
        ],
        quiz: `What can the ${name} do?`,
        value: can,
        answer: (value) => `${a(name)} can ${value}.`,
        statements: [`${plural} can ${can}.`, `The ${name} can ${can}.`],
        more: `It lives ${home}.`,
      })),
    ),
    ...kind(
      "describe",
      ANIMALS.map((animal) => ({
        subject: animal.name,
        about: animal.plural,
        asks: [
          `Tell me about ${animal.plural}.`,
          `What is ${a(animal.name)}?`,
          `Can you tell me something about ${animal.plural}?`,
        ],
        quiz: `What do you know about the ${animal.name}?`,
        value: animal.name,
        answer: (value) => prose(`${a(animal.name)} is ${a(animal.kind)}`, it(find(value))),
        statements: [`${a(animal.name)} is ${a(animal.kind)}.`, `${a(animal.name)} is ${a(animal.kind)}.`],
      })),
    ),
    ...kind(
      "young",
      YOUNG.map(([parent, young]) => ({
        subject: parent,
        about: `the name of a baby ${parent}`,
        asks: [
          `What is a baby ${parent} called?`,
          `Do you know the name for a baby ${parent}?`,
          `What do people call a baby ${parent}?`,
        ],
        quiz: `What is the young of the ${parent} called?`,
        value: young,
        answer: (value) => `A baby ${parent} is called ${a(value)}.`,
        statements: [
          `A baby ${parent} is called ${a(young)}.`,
          `The young of the ${parent} is called ${a(young)}.`,
        ],
        more: it(find(parent)),
      })),
    ),
    ...kind("bigger", pairsBySize()),
  ];
}

function find(name: string) {
  const animal = ANIMALS.find((animal) => animal.name === name);
  if (!animal) throw new Error(`world.ts: no animal is called ${name}`);
  return animal;
}

/** Every pair of animals of very different size, the bigger one asked for first or last by turns. */
function pairsBySize(): Draft[] {
  const drafts: Draft[] = [];
  for (const big of ANIMALS) {
    for (const small of ANIMALS) {
      if (big.size < small.size + 2) continue;
      const [left, right] = drafts.length % 2 === 0 ? [big, small] : [small, big];
      drafts.push({
        subject: big.name,
        about: `${left.plural} and ${right.plural}`,
        asks: [
          `Which is bigger, ${a(left.name)} or ${a(right.name)}?`,
          `Tell me which is bigger, ${a(left.name)} or ${a(right.name)}.`,
        ],
        quiz: `Which of the two is bigger, the ${left.name} or the ${right.name}?`,
        value: big.name,
        answer: (value) => `The ${value} is bigger.`,
        statements: [
          `${a(big.name)} is bigger than ${a(small.name)}.`,
          `${a(small.name)} is smaller than ${a(big.name)}.`,
        ],
        more: `${a(small.name)} is smaller than ${a(big.name)}.`,
      });
    }
  }
  return drafts;
}

function thingFacts(): Fact[] {
  return [
    ...kind(
      "colour",
      COLOURS.map(([thing, colour]) => ({
        subject: thing,
        about: `the colour of ${thing}`,
        asks: [
          `What colour is ${thing}?`,
          `Can you tell me the colour of ${thing}?`,
          `Which colour is ${thing}?`,
        ],
        quiz: `What is the colour of ${thing}?`,
        value: colour,
        answer: (value) => `${thing} is ${value}.`,
        statements: [`${thing} is ${colour}.`, `To paint ${thing}, take ${colour}.`],
        more: `To paint ${thing}, take ${colour}.`,
      })),
    ),
    ...kind(
      "tool",
      TOOLS.map(([tool, use, using]) => ({
        subject: tool,
        about: `${a(tool)}`,
        asks: [
          `What is ${a(tool)} for?`,
          `What do people do with ${a(tool)}?`,
          `Can you tell me what ${a(tool)} is for?`,
        ],
        quiz: `What can you do with ${a(tool)}?`,
        value: using,
        answer: (value) => `${a(tool)} is for ${value}.`,
        statements: [`${a(tool)} is for ${using}.`, `With ${a(tool)} you can ${use}.`],
      })),
    ),
    ...kind(
      "made of",
      MATERIALS.map(([thing, material]) => ({
        subject: thing,
        about: `how to make ${thing}`,
        asks: [
          `What is ${thing} made of?`,
          `Can you tell me what ${thing} is made of?`,
          `What do people need to make ${thing}?`,
        ],
        quiz: `Of what is ${thing} made?`,
        value: material,
        answer: (value) => `${thing} is made of ${value}.`,
        statements: [`${thing} is made of ${material}.`, `People make ${thing} of ${material}.`],
      })),
    ),
    ...kind(
      "place",
      PLACES.map(([place, use]) => ({
        subject: place,
        about: `how to ${use}`,
        asks: [
          `Where can I ${use}?`,
          `I want to ${use}. Where should I go?`,
          `Do you know where I can ${use}?`,
        ],
        quiz: `Where do people ${use}?`,
        value: place,
        answer: (value) => `You can ${use} ${value}.`,
        statements: [`You can ${use} ${place}.`, `People ${use} ${place}.`],
      })),
    ),
    ...kind(
      "name three",
      GROUPS.map(([group, members]) => ({
        subject: group,
        about: group,
        asks: [`Name three ${group}.`, `Can you name three ${group}?`, `Tell me three ${group}, please.`],
        quiz: `Who can name three ${group}?`,
        value: list(members.slice(0, 3)),
        answer: (value) => `Three ${group} are ${value}.`,
        statements: [`Three ${group} are ${list(members.slice(0, 3))}.`],
      })),
    ),
  ];
}

function peopleFacts(): Fact[] {
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

function orderFacts(): Fact[] {
  const opposites = OPPOSITES.flatMap(([x, y], i) => [[x, y, i] as const, [y, x, i] as const]);
  const numbers = NUMBERS.slice(1);
  const follow = (words: readonly string[], round: boolean) =>
    words.flatMap((word, i) => i + 1 < words.length || round ? [[word, words[(i + 1) % words.length]]] : []);
  const order = (name: string, word: string, words: readonly string[], round: boolean) =>
    follow(words, round).flatMap(([x, y]) => [[x, y, "after"], [y, x, "before"]]).map((
      [x, y, side],
    ): Draft => ({
      subject: x,
      about: `the ${name} ${side} ${x}`,
      asks: [
        `${word} ${name} comes ${side} ${x}?`,
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
    ...kind("number order", order("number", "Which", numbers, false)),
    ...kind("day order", order("day", "Which", DAYS, true)),
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
