/**
 * The small closed world that the nano model knows: its animals, jobs, tools, colours, feelings and days.
 *
 * Every table is a list of facts that hold always, so that prose, quizzes and dialogues made from them
 * agree with each other. Words are few and used often: what a model of half a million weights can learn.
 *
 * @module
 */

/** An animal and what is true of it. */
export interface Animal {
  readonly name: string;
  readonly plural: string;
  /** What it is: "bird", "farm animal"… */
  readonly kind: string;
  /** What it says; "" where it is quiet. */
  readonly sound: string;
  /** Where it lives, with the preposition. */
  readonly home: string;
  readonly food: string;
  readonly legs: string;
  /** 1 (tiny) to 5 (huge). */
  readonly size: number;
  /** What it can do. */
  readonly can: string;
}

// name, plural, kind, sound, home, food, legs, size, can
const ANIMAL_ROWS: readonly [string, string, string, string, string, string, string, number, string][] = [
  ["cat", "cats", "pet", "meow", "in a house", "fish", "four", 3, "climb a tree"],
  ["dog", "dogs", "pet", "woof", "in a kennel", "bones", "four", 3, "find the way home"],
  ["cow", "cows", "farm animal", "moo", "in a barn", "grass", "four", 4, "give milk"],
  ["sheep", "sheep", "farm animal", "baa", "on a hill", "grass", "four", 3, "give wool"],
  ["pig", "pigs", "farm animal", "oink", "in a sty", "apples", "four", 3, "smell food from far away"],
  ["horse", "horses", "farm animal", "neigh", "in a stable", "hay", "four", 4, "run fast"],
  ["duck", "ducks", "bird", "quack", "on a pond", "seeds", "two", 3, "swim and fly"],
  ["hen", "hens", "farm animal", "cluck", "in a coop", "corn", "two", 3, "lay eggs"],
  ["owl", "owls", "bird", "hoot", "in a hollow tree", "mice", "two", 3, "see in the dark"],
  ["frog", "frogs", "wild animal", "croak", "by a pond", "flies", "four", 2, "jump high"],
  ["crow", "crows", "bird", "caw", "in a nest", "seeds", "two", 3, "fly over the hill"],
  ["bee", "bees", "insect", "buzz", "in a hive", "pollen", "six", 1, "make honey"],
  ["mouse", "mice", "small animal", "squeak", "in a small hole", "cheese", "four", 2, "hide in a shoe"],
  ["rabbit", "rabbits", "small animal", "", "in a burrow", "carrots", "four", 3, "dig a hole"],
  ["fox", "foxes", "wild animal", "", "in a den", "eggs", "four", 3, "hunt at night"],
  ["bear", "bears", "wild animal", "growl", "in a cave", "honey", "four", 4, "sleep all winter"],
  ["lion", "lions", "wild animal", "roar", "on the plain", "meat", "four", 4, "run and jump"],
  [
    "squirrel",
    "squirrels",
    "small animal",
    "",
    "in a tall tree",
    "nuts",
    "four",
    2,
    "jump from tree to tree",
  ],
  ["elephant", "elephants", "wild animal", "", "on the plain", "leaves", "four", 5, "carry a tree"],
  ["monkey", "monkeys", "wild animal", "", "in the jungle", "bananas", "four", 3, "climb very well"],
  ["whale", "whales", "sea animal", "", "in the sea", "small fish", "no", 5, "swim very deep"],
];

/** The animals. */
export const ANIMALS: readonly Animal[] = ANIMAL_ROWS.map((
  [name, plural, kind, sound, home, food, legs, size, can],
) => ({ name, plural, kind, sound, home, food, legs, size, can }));

/** A young animal: its parent's name and its own. */
export const YOUNG: readonly [string, string][] = [
  ["cat", "kitten"],
  ["dog", "puppy"],
  ["cow", "calf"],
  ["sheep", "lamb"],
  ["pig", "piglet"],
  ["duck", "duckling"],
  ["hen", "chick"],
  ["bear", "cub"],
];

/** What things look like: as the subject of a sentence, and the colour. */
export const COLOURS: readonly [string, string][] = [
  ["a banana", "yellow"],
  ["a tomato", "red"],
  ["the sky", "blue"],
  ["grass", "green"],
  ["snow", "white"],
  ["coal", "black"],
  ["a carrot", "orange"],
  ["a plum", "purple"],
  ["a pig", "pink"],
  ["chocolate", "brown"],
  ["a lemon", "yellow"],
  ["a cherry", "red"],
  ["the sea", "blue"],
  ["a leaf", "green"],
  ["milk", "white"],
  ["a crow", "black"],
  ["a bear", "brown"],
  ["the sun", "yellow"],
  ["an elephant", "grey"],
  ["a frog", "green"],
];

/** Someone with a job: the job's name, what they do, where they work. */
export const JOBS: readonly [string, string, string][] = [
  ["baker", "bake bread", "in a bakery"],
  ["farmer", "grow corn", "on a farm"],
  ["doctor", "help sick people", "in a hospital"],
  ["teacher", "teach children", "in a school"],
  ["cook", "make soup", "in a kitchen"],
  ["painter", "paint pictures", "in a bright room"],
  ["builder", "build houses", "in the town"],
  ["gardener", "plant flowers", "in a garden"],
  ["singer", "sing songs", "in the town"],
  ["driver", "drive the bus", "in the town"],
  ["sailor", "sail ships", "on the sea"],
  ["pilot", "fly planes", "in the sky"],
  ["tailor", "sew clothes", "in a small shop"],
  ["writer", "write books", "in a quiet room"],
  ["shepherd", "look after sheep", "on a hill"],
  ["postman", "bring letters", "in the village"],
];

/** A tool: its name, what one does with it, and the same as a gerund. */
export const TOOLS: readonly [string, string, string][] = [
  ["spoon", "eat soup", "eating soup"],
  ["knife", "cut bread", "cutting bread"],
  ["bed", "sleep", "sleeping"],
  ["umbrella", "stay dry in the rain", "staying dry in the rain"],
  ["key", "open a door", "opening a door"],
  ["lamp", "see in the dark", "seeing in the dark"],
  ["pen", "write a letter", "writing a letter"],
  ["cup", "drink tea", "drinking tea"],
  ["chair", "sit at the table", "sitting at the table"],
  ["clock", "tell the time", "telling the time"],
  ["boat", "cross a river", "crossing a river"],
  ["brush", "paint pictures", "painting pictures"],
  ["bag", "carry books", "carrying books"],
  ["blanket", "stay warm at night", "staying warm at night"],
  ["pan", "cook eggs", "cooking eggs"],
  ["net", "catch fish", "catching fish"],
  ["oven", "bake a cake", "baking a cake"],
];

/** Opposites; true in both directions. */
export const OPPOSITES: readonly [string, string][] = [
  ["hot", "cold"],
  ["big", "small"],
  ["up", "down"],
  ["day", "night"],
  ["happy", "sad"],
  ["fast", "slow"],
  ["wet", "dry"],
  ["open", "closed"],
  ["old", "new"],
  ["full", "empty"],
  ["long", "short"],
  ["loud", "quiet"],
  ["early", "late"],
  ["near", "far"],
  ["clean", "dirty"],
];

/** Where something is done: the place with its preposition, what one does there. */
export const PLACES: readonly [string, string][] = [
  ["at the library", "borrow books"],
  ["at the market", "buy fruit"],
  ["at the bakery", "buy bread"],
  ["on the beach", "play in the sand"],
  ["at school", "learn to read"],
  ["at the station", "take a train"],
  ["at the harbour", "see ships"],
  ["in the forest", "see tall trees"],
  ["at the hospital", "see a doctor"],
  ["in the park", "play with a ball"],
  ["on the farm", "see cows"],
  ["in the garden", "pick flowers"],
];

/** What things are made of: the subject, the material. */
export const MATERIALS: readonly [string, string][] = [
  ["bread", "flour"],
  ["cheese", "milk"],
  ["a window", "glass"],
  ["a chair", "wood"],
  ["a key", "metal"],
  ["a sweater", "wool"],
  ["a wall", "stone"],
  ["a book", "paper"],
];

/** What to wear: when, and what. */
export const CLOTHES: readonly [string, string][] = [
  ["it rains", "a raincoat and boots"],
  ["it snows", "a thick coat and gloves"],
  ["it is sunny", "a hat"],
  ["it is windy", "a scarf"],
  ["it is cold", "a warm sweater"],
  ["it is hot", "a thin shirt"],
  ["you go to bed", "soft pyjamas"],
];

/** How one can feel, what to say to it, and what helps. */
export const FEELINGS: readonly [string, string, string][] = [
  ["sad", "I am sorry that you are sad", "a talk with a good friend can help"],
  ["tired", "you need some rest", "a warm bed and a good sleep can help"],
  ["hungry", "let us find some food", "bread and an apple can help"],
  ["thirsty", "let us find a drink", "a cup of cold water can help"],
  ["bored", "let us find something to do", "a good book or a game can help"],
  ["scared", "do not worry, you are safe", "a lamp and a kind friend can help"],
  ["angry", "I am sorry that you are angry", "a slow walk and a deep breath can help"],
  ["lonely", "I am sorry that you are lonely", "a visit to a friend can help"],
  ["sick", "I am sorry that you are sick", "a doctor and a day in bed can help"],
  ["cold", "let us make you warm", "a thick blanket and hot tea can help"],
];

/** When things happen: the statement, its question's middle, and the time. */
export const TIMES: readonly [string, string, string][] = [
  ["the flowers grow", "do the flowers grow", "in spring"],
  ["people swim in the sea", "do people swim in the sea", "in summer"],
  ["the leaves fall", "do the leaves fall", "in autumn"],
  ["the snow falls", "does the snow fall", "in winter"],
  ["the sun rises", "does the sun rise", "in the morning"],
  ["people eat lunch", "do people eat lunch", "at noon"],
  ["the sun sets", "does the sun set", "in the evening"],
  ["the stars shine", "do the stars shine", "at night"],
];

/** The numbers from one to ten; no is zero's word. */
export const NUMBERS: readonly string[] = [
  "no",
  "one",
  "two",
  "three",
  "four",
  "five",
  "six",
  "seven",
  "eight",
  "nine",
  "ten",
];

/** The days of the week. */
export const DAYS: readonly string[] = [
  "Monday",
  "Tuesday",
  "Wednesday",
  "Thursday",
  "Friday",
  "Saturday",
  "Sunday",
];

/** Groups of things, to name some of: the group's name, its members in the plural. */
export const GROUPS: readonly [string, readonly string[]][] = [
  ["fruits", ["apples", "plums", "cherries", "bananas"]],
  ["colours", ["red", "blue", "green", "yellow", "orange"]],
  ["farm animals", ["cows", "pigs", "sheep", "horses"]],
  ["birds", ["owls", "ducks", "crows"]],
  ["wild animals", ["foxes", "bears", "lions", "monkeys"]],
  ["things in a kitchen", ["a pan", "a spoon", "a knife", "an oven"]],
];

/** Someone in a story: a name and how to speak of them. */
export interface Person {
  readonly name: string;
  readonly he: string;
  readonly him: string;
  readonly his: string;
}

const male = (name: string): Person => ({ name, he: "he", him: "him", his: "his" });
const female = (name: string): Person => ({ name, he: "she", him: "her", his: "her" });

/** Children and grown-ups. */
export const PEOPLE: readonly Person[] = [
  ...["Tom", "Ben", "Max", "Sam", "Leo", "Finn"].map(male),
  ...["Mia", "Anna", "Ella", "Lucy", "Rosa", "Nina"].map(female),
];

/** Names that animals have in stories. */
export const PETS: readonly Person[] = [
  ...["Pip", "Milo", "Teddy"].map(male),
  ...["Dot", "Luna", "Poppy"].map(female),
];

/** Small things that one can find, lose and give; for colours see {@linkcode PAINT}. */
export const TOYS: readonly string[] = [
  "ball",
  "kite",
  "hat",
  "boat",
  "bell",
  "scarf",
  "cup",
  "book",
  "key",
  "drum",
];

/** Colours that a toy may have. */
export const PAINT: readonly string[] = ["red", "blue", "green", "yellow", "white", "purple"];

/** Food by the piece: one, and several. */
export const FRUITS: readonly [string, string][] = [
  ["apple", "apples"],
  ["plum", "plums"],
  ["cherry", "cherries"],
  ["carrot", "carrots"],
  ["nut", "nuts"],
  ["egg", "eggs"],
  ["cake", "cakes"],
];

/** Where a story can happen, with the preposition. */
export const SCENES: readonly string[] = [
  "in the forest",
  "in the garden",
  "by the river",
  "on the hill",
  "in the park",
  "on the beach",
  "at the market",
  "by the pond",
];

/** Where a lost thing may lie. */
export const SPOTS: readonly string[] = [
  "under the bed",
  "behind the door",
  "under a tree",
  "in the long grass",
  "behind a big stone",
  "on a high wall",
];

/** The weather of a day. */
export const WEATHER: readonly string[] = [
  "sunny",
  "windy",
  "cold",
  "warm",
  "rainy",
  "cloudy",
];

/** Animals that stories are about: those that can meet in a forest or a garden. */
export const HEROES: readonly Animal[] = ANIMALS.filter(({ name }) => !["whale"].includes(name));
