/**
 * Facts about things: colours, tools, materials, places, groups.
 *
 * @module
 */
import { type Fact, kind } from "./fact.ts";
import { a, list } from "./grammar.ts";
import { COLOURS, GROUPS, MATERIALS, PLACES, TOOLS } from "./world.ts";

/** Facts about things. */
export function thingFacts(): Fact[] {
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
