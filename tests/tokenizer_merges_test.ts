import { assertEquals, assertThrows } from "@std/assert";
import { Merges } from "../src/text/merges.ts";

function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8) % below;
}

/** The leftmost pair of lowest rank becomes one symbol, until there is none. */
function plainly(triples: number[][], row: number[]): number[] {
  row = [...row];
  for (;;) {
    const rankAt = (i: number) =>
      triples.findLastIndex(([left, right]) => left === row[i] && right === row[i + 1]);
    let best = -1;
    for (let i = 0; i + 1 < row.length; i++) {
      if (rankAt(i) >= 0 && (best < 0 || rankAt(i) < rankAt(best))) best = i;
    }
    if (best < 0) return row;
    row.splice(best, 2, triples[rankAt(best)][2]);
  }
}

Deno.test("merging gives what merging one pair at a time gives, on short rows and long", () => {
  const random = randomNumbers(7);
  for (let trial = 0; trial < 120; trial++) {
    const symbols = 1 + random(3);
    const triples: number[][] = [];
    // Of random symbols, also ones that only a later merge makes: ranks need not be in order of making.
    for (let i = 0; i < 12; i++) triples.push([random(symbols + 12), random(symbols + 12), symbols + i]);
    const merges = new Merges(triples.length);
    for (const [left, right, result] of triples) merges.add(left, right, result);
    for (const length of [0, 1, 2, 3, 7, 31, 32, 33, 64, 100]) {
      const row = Array.from({ length }, () => random(symbols));
      const merged = Int32Array.from(row);
      const left = merges.apply(merged, length);
      assertEquals([...merged.subarray(0, left)], plainly(triples, row));
    }
  }
});

Deno.test("a pair given again takes the later rank", () => {
  const merges = new Merges(3);
  merges.add(0, 1, 2);
  merges.add(1, 1, 3);
  merges.add(0, 1, 4);
  const row = Int32Array.of(0, 1, 1, 0, 1);
  assertEquals([...row.subarray(0, merges.apply(row, 5))], [0, 3, 4]);
});

Deno.test("a table beyond the bound on ranks is refused before it is allocated", () => {
  assertThrows(() => new Merges(2 ** 40), RangeError, "at most");
});
