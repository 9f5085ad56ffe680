/**
 * Little stories: long ones for prose, short ones for answers, each with characters that keep their
 * name and pronoun from the first sentence to the last.
 *
 * @module
 */
import { a, capital, prose, type Random } from "./grammar.ts";
import {
  type Animal,
  ANIMALS,
  FRUITS,
  HEROES,
  NUMBERS,
  PAINT,
  PEOPLE,
  type Person,
  PETS,
  SCENES,
  SPOTS,
  TOYS,
  WEATHER,
} from "./world.ts";

/** Someone in a story; an animal, where they are one. */
interface Character extends Person {
  readonly animal?: Animal;
}

/** Whom a story is about. */
interface Cast {
  readonly hero: Character;
  readonly friend: Character;
}

function character(random: Random, animal: Animal | undefined, not?: Person): Character {
  const names = (animal ? PETS : PEOPLE).filter((person) => person.name !== not?.name);
  return { ...random.pick(names), animal };
}

function cast(random: Random, animal?: Animal): Cast {
  const hero = character(random, animal ?? (random.chance(0.6) ? random.pick(HEROES) : undefined));
  const other = random.chance(0.6) ? random.pick(HEROES.filter((one) => one !== hero.animal)) : undefined;
  return { hero, friend: character(random, other, hero) };
}

/** A character at the first mention: "a crow called Dot", or the name alone. */
const meet = ({ animal, name }: Character) => animal ? `${a(animal.name)} called ${name}` : name;

const say = (text: string, who: string) => `"${capital(text)}," said ${who}.`;

function opening(random: Random, { hero }: Cast): string {
  if (!hero.animal) return prose(`One ${random.pick(WEATHER)} day ${hero.name} was ${random.pick(SCENES)}`);
  const { name, home } = hero.animal;
  return random.pick([
    () => prose(`Once there was ${a(name)} called ${hero.name}`, `${hero.name} lived ${home}`),
    () => prose(`There was once a little ${name} called ${hero.name}`, `${hero.he} lived ${home}`),
    () => prose(`${hero.name} was a young ${name} who lived ${home}`),
  ])();
}

function ending(random: Random, { hero, friend }: Cast): string {
  return random.pick([
    `From that day on, ${hero.name} and ${friend.name} were good friends.`,
    `They played together until the sun set.`,
    `${hero.name} was very happy.`,
    `Then they went home and slept well.`,
    `What a good day it was!`,
  ]);
}

const PLOTS: readonly ((random: Random, cast: Cast) => string[])[] = [
  // Something is lost and found.
  (random, { hero, friend }) => {
    const toy = `${random.pick(PAINT)} ${random.pick(TOYS)}`;
    const [here, there] = random.sample(SPOTS, 2);
    return [
      `${hero.he} had ${a(toy)} and loved it very much`,
      `But then the ${toy} was gone`,
      `${hero.name} looked ${here}, but it was not there`,
      `Then ${hero.he} met ${meet(friend)}`,
      `"Do you know where my ${toy} is?" asked ${hero.name}`,
      say(`let us look ${there}`, friend.name),
      `And there it was!`,
      `${hero.name} thanked ${friend.name} for the help`,
    ];
  },
  // Something is shared, and counted.
  (random, { hero, friend }) => {
    const [one, many] = random.pick(FRUITS);
    const given = 1 + random.int(3);
    const left = 1 + random.int(4);
    const fruit = (n: number) => `${NUMBERS[n]} ${n === 1 ? one : many}`;
    return [
      `${hero.he} had ${fruit(given + left)} in a bag`,
      `On the way ${hero.he} met ${meet(friend)}, who was hungry`,
      say(`please take ${fruit(given)}`, hero.name),
      say("thank you, you are very kind", friend.name),
      `Now ${hero.name} had ${fruit(left)} and a new friend`,
    ];
  },
  // Rain.
  (random, { hero, friend }) => [
    random.pick(["Then it began to rain", "Dark clouds came, and it began to rain"]),
    `${hero.name} had no umbrella and was soon wet and cold`,
    `Then ${meet(friend)} came with a big ${random.pick(PAINT)} umbrella`,
    say("come with me, it is dry under here", friend.name),
    `They walked home together and drank hot tea`,
  ],
  // A sound in the night.
  (random, { hero, friend }) => {
    const loud = random.pick(ANIMALS.filter(({ sound, name }) => sound && name !== hero.animal?.name));
    return [
      `In the night ${hero.he} heard a sound ${random.pick(SCENES)}`,
      `"${capital(loud.sound)}, ${loud.sound}!"`,
      `${hero.name} was scared and called ${meet(friend)}`,
      `They took a lamp and looked ${random.pick(SPOTS)}`,
      `It was only ${a(loud.name)}`,
      say(`${a(loud.name)} says ${loud.sound}`, friend.name) + " " +
      capital(`${hero.name} was not scared any more`),
    ];
  },
  // Something hard is learnt.
  (random, { hero, friend }) => {
    const [skill, done] = random.pick([
      ["bake a cake", "baked a cake"],
      ["climb a tree", "climbed a tall tree"],
      ["sing a song", "sang a long song"],
      ["swim", "swam across the pond"],
      ["paint a picture", "painted a picture of the sea"],
      ["fly a kite", "flew a kite high in the sky"],
    ]);
    return [
      `${hero.he} wanted to ${skill}, but it was hard`,
      say("I can not do it", hero.name),
      say("try again, and take your time", meet(friend)),
      `So ${hero.name} tried again on ${
        random.pick(["Monday", "Tuesday", "Friday"])
      }, and again the next day`,
      `On the third day ${hero.he} ${done}`,
      say("well done", friend.name),
    ];
  },
  // A present.
  (random, { hero, friend }) => {
    const toy = `${random.pick(PAINT)} ${random.pick(TOYS)}`;
    return [
      `It was the birthday of ${hero.his} friend, ${meet(friend)}`,
      `${hero.name} had no money, so ${hero.he} made ${a(toy)}`,
      say(`this is for you`, hero.name),
      `${friend.name} loved the ${toy} and gave ${hero.him} a big cake`,
    ];
  },
  // A small one helps a big one.
  (random, { hero, friend }) => {
    const big = random.pick(HEROES.filter(({ size, name }) => size > 3 && name !== hero.animal?.name));
    return [
      `There ${hero.he} met a big ${big.name} in a net`,
      `"Please help me!" said the ${big.name}`,
      `${hero.name} called ${meet(friend)}, and together they cut the net`,
      say(
        (hero.animal?.size ?? 3) > 3 ? "you are good friends" : "you are small, but you are good friends",
        `the ${big.name}`,
      ),
    ];
  },
];

/** A story of four to ten sentences. */
export function story(random: Random, animal?: Animal): string {
  const who = cast(random, animal);
  return [opening(random, who), prose(...random.pick(PLOTS)(random, who)), ending(random, who)].join(" ");
}

/** The fable of the slow animal that comes first. */
export function race(random: Random): string {
  const fast = random.pick(["rabbit", "horse", "fox", "lion", "wolf"]);
  const slow = random.pick(["pig", "mouse", "duck", "sheep", "frog"]);
  const scene = random.pick(SCENES);
  return prose(
    `${a(fast)} and ${a(slow)} had a race ${scene}`,
    `The ${fast} was fast, and the ${slow} was slow`,
    say("I will be first", `the ${fast}`),
    `Soon the ${fast} was far away, sat down under a tree and slept`,
    `But the ${slow} walked on and on and did not stop`,
    `When the ${fast} woke up, the ${slow} was first`,
    random.pick(["Slow and quiet can be good, too", `Then the ${fast} said, "Well done!"`]),
  );
}

/** How someone asks for a story about an animal. */
export function askForStory(random: Random, { name }: Animal): string {
  return random.pick([
    `Tell me a story about ${a(name)}.`,
    `Can you tell me a story about ${a(name)}?`,
    `I would like to hear a story about ${a(name)}.`,
    `Please tell me a short story about ${a(name)}.`,
  ]);
}

/** A story of three sentences about an animal, as a friendly answer tells it. */
export function shortStory(random: Random, animal: Animal): string {
  const { hero, friend } = cast(random, animal);
  const toy = `${random.pick(PAINT)} ${random.pick(TOYS)}`;
  const scene = random.pick(SCENES);
  const first = `Once there was ${a(animal.name)} called ${hero.name}, who lived ${animal.home}`;
  return random.pick([
    () =>
      prose(
        first,
        `One ${random.pick(WEATHER)} day ${hero.he} found ${a(toy)} ${scene} and gave it to ${meet(friend)}`,
        `They played together until the sun set, and ${hero.name} was very happy`,
      ),
    () =>
      prose(
        first,
        `One day it began to rain, and ${meet(friend)} came with a big umbrella`,
        "They walked home together and drank hot tea",
      ),
    () =>
      prose(
        first,
        `One night ${hero.he} was scared of the dark, so ${meet(friend)} came with a lamp`,
        `Then they slept well, and from that day on they were good friends`,
      ),
    () =>
      prose(
        first,
        `${hero.he} wanted to ${random.pick(["sing a song", "fly a kite", "bake a cake"])}, but it was hard`,
        `Then ${meet(friend)} helped ${hero.him}, and on the third day ${hero.he} could do it`,
      ),
    () =>
      prose(
        first,
        `${hero.his} ${toy} was gone, and ${hero.he} was very sad`,
        `Then ${meet(friend)} found it ${random.pick(SPOTS)}, and they played together all day`,
      ),
    () => {
      const many = random.pick(FRUITS)[1];
      return prose(
        first,
        `${hero.he} had ${NUMBERS[2 + random.int(8)]} ${many} and met ${meet(friend)}, who was hungry`,
        `They sat down ${scene} and ate the ${many} together`,
      );
    },
  ])();
}
