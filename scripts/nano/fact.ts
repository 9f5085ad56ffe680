/**
 * What a fact is: the questions for it, the answer, the sentences that tell it, and whether it is held out.
 *
 * @module
 */

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

/** A fact without what {@linkcode kind} fills in. */
export type Draft = Partial<Fact> & Pick<Fact, "subject" | "about" | "asks" | "quiz" | "value" | "answer">;

/** The facts of one kind; every seventh is held out unless a draft says otherwise. */
export function kind(name: string, drafts: readonly Draft[]): Fact[] {
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
