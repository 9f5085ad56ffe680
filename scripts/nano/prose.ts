/**
 * What the nano model reads: entries of a small encyclopaedia, notes, quizzes, diaries, lists.
 *
 * @module
 */
import { a, capital, list, prose, type Random, sentence, third } from "./grammar.ts";
import { type Fact, FACTS_BY_KIND, FACTS_BY_SUBJECT, heroes, SMALL_TALK } from "./facts.ts";
import { askForStory, shortStory } from "./stories.ts";
import {
  ANIMALS,
  CLOTHES,
  COLOURS,
  DAYS,
  FRUITS,
  GROUPS,
  HEROES,
  JOBS,
  NUMBERS,
  PAINT,
  PEOPLE,
  PLACES,
  SCENES,
  TOOLS,
  TOYS,
  WEATHER,
} from "./world.ts";

const KINDS = [...FACTS_BY_KIND.keys()];
const WEIGHTS = KINDS.map((kind) => Math.sqrt(FACTS_BY_KIND.get(kind)!.length));
const SUBJECTS = [
  ...ANIMALS.map(({ name }) => name),
  ...JOBS.map(([job]) => job),
  ...TOOLS.map(([tool]) => tool),
];
const HEADINGS: Readonly<Record<string, string>> = {
  sound: "What animals say",
  home: "Where animals live",
  food: "What animals eat",
  legs: "How many legs animals have",
  can: "What animals can do",
  describe: "Animals",
  young: "Young animals",
  bigger: "Big and small animals",
  colour: "Colours",
  tool: "What things are for",
  place: "Where people go",
  who: "People and their work",
  wear: "What to wear",
  feeling: "How people feel",
  opposite: "Opposites",
};

/** Any fact; a kind's chance grows with the root of its number of facts. */
export function fact(random: Random): Fact {
  let share = random.next() * WEIGHTS.reduce((sum, weight) => sum + weight, 0);
  const kind = KINDS.find((_, i) => (share -= WEIGHTS[i]) < 0) ?? KINDS[0];
  return random.pick(FACTS_BY_KIND.get(kind)!);
}

const answer = (fact: Fact): string => sentence(fact.answer(fact.value));
/** A question for the fact: as dialogues ask it too, unless only the test's dialogues ask for it. */
export const question = (random: Random, fact: Fact): string =>
  fact.heldOut ? fact.quiz : random.pick([fact.quiz, ...fact.asks]);
/** The answer as someone says it: "…," said Tom. */
const said = (text: string, who: string): string => `"${text.replace(/\.$/, ",")}" said ${who}.`;

/** Entries of an encyclopaedia: one about an animal, or several about jobs and tools. */
export function entries(random: Random): string {
  if (random.chance(0.6)) return entry(random, random.pick(ANIMALS).name);
  return random.sample(SUBJECTS, 2 + random.int(2)).map((subject) => entry(random, subject)).join("\n\n");
}

/** What is known of one subject. */
function entry(random: Random, subject: string): string {
  const facts = random.sample(FACTS_BY_SUBJECT.get(subject)!.filter(({ kind }) => kind !== "bigger"), 6);
  facts.push(...random.sample(FACTS_BY_SUBJECT.get(subject)!.filter(({ kind }) => kind === "bigger"), 2));
  const isJob = JOBS.some(([job]) => job === subject);
  let named = false;
  const sentences = facts.map((fact) => {
    const statement = sentence(random.pick(fact.statements));
    const opening = new RegExp(`^(An?|The) ${subject} `);
    if (!opening.test(statement)) return statement;
    const pronoun = named && !isJob && random.chance(0.4);
    named = true;
    return pronoun ? statement.replace(opening, "It ") : statement;
  });
  const title = random.chance(0.3) ? `The ${subject}\n\n` : "";
  return title + [...new Set(sentences)].join(" ");
}

/** Facts of one kind, one after the other. */
export function notes(random: Random): string {
  const { kind } = fact(random);
  const facts = random.sample(FACTS_BY_KIND.get(kind)!, 4 + random.int(5));
  const lines = facts.map((fact) => sentence(random.pick(fact.statements)));
  const heading = HEADINGS[kind] && random.chance(0.3) ? `${HEADINGS[kind]}\n\n` : "";
  return heading + lines.join(random.chance(0.2) ? "\n" : " ");
}

/** Questions and right answers in a story: at school, or wherever someone is curious. */
export function quiz(random: Random): string {
  const children = random.sample(PEOPLE, 3).map(({ name }) => name);
  const [scene, asker] = random.pick([
    [`It was ${random.pick(DAYS)}, and the children were at school`, "the teacher"],
    [`${list(children)} sat ${random.pick(SCENES)}`, `the old ${random.pick(JOBS)[0]}`],
  ]);
  const lines = [sentence(scene)];
  const kind = random.chance(0.5) ? fact(random).kind : undefined;
  for (let n = 3 + random.int(3); n > 0; n--) {
    const asked = kind ? random.pick(FACTS_BY_KIND.get(kind)!) : fact(random);
    lines.push(`"${question(random, asked)}" asked ${asker}.`, said(answer(asked), random.pick(children)));
    if (random.chance(0.3)) {
      lines.push(said(random.pick(["Very good.", "Well done.", "That is right."]), asker));
    }
  }
  return lines.join(" ");
}

/** Cards with a question on one side and its answer on the other. */
export function cards(random: Random): string {
  return Array.from({ length: 3 + random.int(4) }, () => {
    const asked = fact(random);
    return `Question: ${question(random, asked)}\nAnswer: ${answer(asked)}`;
  }).join("\n\n");
}

/** Questions and answers as a play has them: a name, what they say. */
export function lesson(random: Random): string {
  const [asker, child] = random.pick([
    ["Teacher", random.pick(PEOPLE).name],
    [random.pick(PEOPLE).name, "Teacher"],
    random.sample(PEOPLE, 2).map(({ name }) => name),
  ]);
  return Array.from({ length: 2 + random.int(4) }, () => {
    if (random.chance(0.06)) {
      const animal = random.pick(HEROES);
      const asked = heroes(true).includes(animal)
        ? `Do you know a story about ${a(animal.name)}?`
        : askForStory(random, animal);
      return `${asker}: ${asked}\n\n${child}: ${shortStory(random, animal)}`;
    }
    const asked = fact(random);
    const more = asked.more !== "" && random.chance(0.4) ? ` ${sentence(asked.more)}` : "";
    return `${asker}: ${question(random, asked)}\n\n${child}: ${answer(asked)}${more}`;
  }).join("\n\n");
}

/** Someone's day. */
export function diary(random: Random): string {
  const { name, he } = random.pick(PEOPLE);
  const [place, use] = random.pick(PLACES);
  const [when, clothes] = random.pick(CLOTHES.filter(([when]) => when.startsWith("it")));
  const weather = when.startsWith("it is") ? when.replace("is", "was") : when.replace(/s$/, "ed");
  const [, fruits] = random.pick(FRUITS);
  const toy = `${random.pick(PAINT)} ${random.pick(TOYS)}`;
  const [job] = random.pick(JOBS);
  const day = random.pick(DAYS);
  return prose(
    `On ${day} ${
      weather.replace("snowsed", "snowed").replace("rainsed", "rained")
    }, so ${name} wore ${clothes}`,
    random.pick([`${he} went out to ${use} ${place}`, `${he} wanted to ${use}, so ${he} went out`]),
    random.pick([
      `On the way ${he} met the ${job} and said, "Good morning!"`,
      `There ${he} saw ${a(toy)} and took it home`,
      `Then ${he} bought ${NUMBERS[2 + random.int(8)]} ${fruits}`,
    ]),
    random.pick([
      `At noon ${he} ate lunch ${random.pick(SCENES)}`,
      `It was a good day for ${name}`,
      `In the evening ${he} was tired and went to bed early`,
      `Then ${he} sat down and looked at the sky`,
    ]),
  );
}

/** People of a village and their work. */
export function village(random: Random): string {
  const people = random.sample(PEOPLE, 3);
  const jobs = random.sample(JOBS, 3);
  const lines = people.flatMap(({ name, he }, i) => {
    const [job, task, place] = jobs[i];
    return [`${name} is ${a(job)}`, `${he} ${third(task)} ${place}`];
  });
  const [first, second] = people;
  return prose(
    ...lines,
    `${random.pick(["Every day", "Every morning", "On Sunday"])} ${first.name} meets ${second.name} ` +
      random.pick(SCENES),
    `"How are you?" asks ${first.name}`,
    `"I am well, thank you," says ${second.name}`,
  );
}

/** Small talk as a story tells it. */
export function talk(random: Random): string {
  const { name } = random.pick(PEOPLE);
  const turns = SMALL_TALK.filter(() => random.chance(0.25)).map(([text, reply]) => {
    const asks = text.endsWith("?") ? "asked" : "said";
    return `"${text.replace(/\.$/, ",")}" ${asks} ${name}. ${said(reply, "Nano")}`;
  });
  const opening = random.pick([
    `${name} went to see Nano, the small helper`,
    `One ${random.pick(WEATHER)} day ${name} met Nano`,
    `Nano is a very small helper. ${name} came to see Nano`,
  ]);
  return [sentence(opening), ...turns].join(" ");
}

/** Things in groups. */
export function lists(random: Random): string {
  return random.pick([
    () => {
      const [group, members] = random.pick(GROUPS);
      return `${capital(group)}: ${random.sample(members, 4).join(", ")}.`;
    },
    () => {
      const [, colour] = random.pick(COLOURS);
      return `${capital(colour)} things: ${
        COLOURS.filter(([, other]) => other === colour).map(([thing]) => thing).join(", ")
      }.`;
    },
    () => `Things to take: ${random.sample(TOOLS, 4).map(([tool]) => a(tool)).join(", ")}.`,
    () => `To buy at the market: ${random.sample(FRUITS, 3).map(([, fruits]) => fruits).join(", ")}.`,
    () => `Animals on the picture: ${random.sample(ANIMALS, 4).map(({ name }) => a(name)).join(", ")}.`,
  ])();
}

/** A counting rhyme. */
export function rhyme(random: Random): string {
  const n = 2 + random.int(9);
  const animal = random.pick(ANIMALS);
  const [one, fruits] = random.pick(FRUITS);
  const x = 1 + random.int(5);
  const y = 1 + random.int(5);
  return prose(
    NUMBERS.slice(1, n + 1).join(", "),
    `I see ${NUMBERS[n]} ${animal.plural} ${animal.home}`,
    `${NUMBERS[x]} ${x === 1 ? one : fruits} and ${NUMBERS[y]} ${y === 1 ? one : fruits} make ${
      NUMBERS[x + y]
    } ${fruits}`,
  );
}
