/** The part of `@std/cli`'s parser that Whet uses; the npm package has no types of its own. */
export declare function parseArgs(
  args: readonly string[],
  options: {
    boolean?: readonly string[];
    string?: readonly string[];
    collect?: readonly string[];
    unknown?: (arg: string, key?: string, value?: unknown) => unknown;
  },
): Record<string, unknown> & { _: (string | number)[] };
