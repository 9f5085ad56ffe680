/**
 * The keys of PEFT's rank_pattern and alpha_pattern: names, or regular expressions, of modules.
 *
 * @module
 */

import { WhetError } from "../errors.ts";

/** Names are compared as they are; a dot in one is not meant as "any character". */
const PLAIN = /^\^?[\w.]+$/;

/** The most entries of a table: several times GPT-2 XL's modules. */
const MOST = 1000;

/**
 * Checks that patterns from an untrusted file can be evaluated here as Python would, and soon.
 *
 * A regular expression can be made to backtrack for years. Two repetitions, none of a group, and two
 * groups with alternatives, against a path of at most 128 characters, cannot.
 *
 * @param patterns The patterns.
 * @param where The file and field, for the message.
 * @throws {WhetError} `unsupported`, naming the pattern.
 */
export function checkPatterns(patterns: readonly string[], where: string): void {
  if (patterns.length > MOST) {
    throw new WhetError("unsupported", `${where}: expected at most ${MOST} entries, got ${patterns.length}`);
  }
  for (const pattern of patterns) {
    if (PLAIN.test(pattern)) continue;
    // Without escapes, classes and the marks of non-capturing groups, each sign that is left means itself.
    const bare = pattern.replace(/\\./gs, "a").replace(/\[[^\]]*\]/g, "a").replaceAll("(?:", "(");
    const repetitions = bare.match(/[*+?{]/g)?.length ?? 0;
    const groups = bare.match(/\(/g)?.length ?? 0;
    let ok = pattern.length <= 200 && repetitions <= 2 && groups <= 2 && !/\)[*+?{]/.test(bare);
    try {
      compile(pattern);
    } catch {
      ok = false;
    }
    if (!ok) {
      throw new WhetError(
        "unsupported",
        `${where}: the pattern ${
          JSON.stringify(pattern.slice(0, 200))
        } is too involved; name the modules instead`,
      );
    }
  }
}

/**
 * Looks a module up in a pattern table; the first pattern that matches counts, as in PEFT.
 *
 * @param table Patterns, checked by {@linkcode checkPatterns}, and their values.
 * @param path The module's path, such as `transformer.h.0.attn.c_attn`.
 * @returns The value, or undefined where no pattern matches.
 */
export function patternValue(table: Readonly<Record<string, number>>, path: string): number | undefined {
  for (const [pattern, value] of Object.entries(table)) if (matches(pattern, path)) return value;
  return undefined;
}

function matches(pattern: string, path: string): boolean {
  if (!PLAIN.test(pattern)) return compile(pattern).test(path);
  return pattern.startsWith("^")
    ? path === pattern.slice(1)
    : path === pattern || path.endsWith(`.${pattern}`);
}

/** As Python's `re.match(rf"(.*\.)?({pattern})$", path)`; the flag refuses what only Python knows. */
function compile(pattern: string): RegExp {
  return new RegExp(`^(?:.*\\.)?(?:${pattern})$`, "u");
}
