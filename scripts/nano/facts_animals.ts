/**
 * Facts about animals: what they say, eat and can do, where they live, which is bigger.
 *
 * @module
 */
import { type Draft, type Fact, kind } from "./fact.ts";
import { a, prose } from "./grammar.ts";
import { ANIMALS, YOUNG } from "./world.ts";

const it = (animal: { home: string; food: string }) => `It lives ${animal.home} and eats ${animal.food}.`;

/** Facts about animals. */
export function animalFacts(): Fact[] {
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
