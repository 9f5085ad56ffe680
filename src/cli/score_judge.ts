/**
 * `whet score --judge`: answers rated by a language model behind an OpenAI-compatible API.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { oneLine } from "../format/hub_http.ts";
import { Progress } from "../report/progress.ts";
import { createJudge, type Judge } from "../score/judge.ts";
import { selectPairs, type Side } from "../score/pairs.ts";
import { UsageError } from "./flags.ts";
import { interruptible } from "./interrupt.ts";
import { given } from "./model.ts";
import { note, printLine } from "./output.ts";
import { countLeftOut, loadData, resultsAreProgress, type ScoreValues, withError } from "./score_data.ts";

/** What `--json` prints for `--judge`. */
export interface JudgeResult {
  /** Mean of the ratings that could be read; null if none could. */
  mean: number | null;
  /** Standard error of that mean; null with fewer than two. */
  standard_error: number | null;
  /** Ratings that could be read. */
  n: number;
  /** Replies without a clear rating. */
  unreadable: number;
  /** Each answer's rating, from 1 to 10, in the data's order; null where the reply has no clear one. */
  ratings: (number | null)[];
  /** Examples that hold no answer to rate. */
  left_out: number;
}

/** Has a file's answers rated; Ctrl-C drops the requests that are under way. */
export async function scoreByJudge(values: ScoreValues): Promise<JudgeResult> {
  const { json, quiet } = values;
  let done = 0;
  return await interruptible(async (signal) => {
    // The bar does not exist before the pairs are counted, the judge's notes not before its first request.
    let bar: Progress | null = null;
    const hidden = resultsAreProgress(json);
    const say = (text: string) => hidden && !quiet ? note(text) : bar?.note(text);
    const judge = openJudge(values, say);
    const data = await loadData(values, signal);
    const { pairs, at, leftOut } = selectPairs(data, values.side as Side | undefined);
    const left_out = countLeftOut(leftOut, data, quiet);
    if (!quiet) note(`${judge.name}: ${pairs.length} answers to rate`);
    bar = new Progress({ total: pairs.length, label: "judge", quiet: quiet || hidden });
    const place = (index: number) => data.where(at[index]);
    const print = inOrder<number | null>((index, rating) => {
      if (!json) printLine(`${place(index)}: ${rating ?? "unreadable"}`);
    });
    try {
      const { mean, standardError, n, unreadable, ratings } = await judge.rate(pairs, {
        signal,
        onProgress: (count) => bar!.update({ done: done = count }),
        onRating: (index, rating, reply) => {
          if (rating === null) say(unclear(place(index), reply));
          print(index, rating);
        },
      });
      if (!json) {
        const average = n === 0 ? "no rating could be read" : `mean rating ${withError(mean, standardError)}`;
        printLine(`${average}, ${n} answers, ${unreadable} unreadable`);
      }
      return {
        ...{ mean: n > 0 ? mean : null, standard_error: n > 1 ? standardError : null, n },
        ...{ unreadable, ratings, left_out },
      };
    } finally {
      bar.finish();
    }
  }, () => `stopped after ${done} ratings; nothing is written`);
}

/** The judge of the flags; what is wrong with them is wrong usage. */
function openJudge(values: ScoreValues, onNote: (note: string) => void): Judge {
  const { "judge-key-env": variable, "judge-concurrency": concurrency } = values;
  const apiKey = variable === undefined ? undefined : readKey(variable);
  try {
    return createJudge({
      ...{ url: values.judge!, model: values["judge-model"]!, onNote },
      ...given({ apiKey, concurrency }),
    });
  } catch (error) {
    throw error instanceof WhetError && error.code === "option" ? new UsageError(error.message) : error;
  }
}

/** The key, which no message ever shows. */
function readKey(variable: string): string {
  // A variable's name has neither "=" nor NUL: Deno would throw, and a key given by mistake would be shown.
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(variable)) {
    throw new UsageError("--judge-key-env: expected the name of an environment variable, not the key itself");
  }
  if (Deno.permissions.querySync({ name: "env", variable }).state !== "granted") {
    throw new WhetError(
      "resource",
      `--judge-key-env: no permission to read ${variable}; add --allow-env=${variable}`,
    );
  }
  const key = Deno.env.get(variable)?.trim();
  if (!key) throw new WhetError("option", `--judge-key-env: ${variable} is not set; put the API's key there`);
  return key;
}

function unclear(where: string, reply: string): string {
  const end = oneLine(reply.slice(-80));
  return `${where}: the reply has no clear rating: ${
    end === "" ? "it is empty" : JSON.stringify(reply.length > 80 ? `…${end}` : end)
  }`;
}

/** Hands on what comes out of order in order, as soon as all before it is there. */
function inOrder<T>(take: (index: number, value: T) => void): (index: number, value: T) => void {
  const waiting = new Map<number, T>();
  let next = 0;
  return (index, value) => {
    waiting.set(index, value);
    for (; waiting.has(next); next++) {
      take(next, waiting.get(next)!);
      waiting.delete(next);
    }
  };
}
