/**
 * `@std/cli`'s argument parser, from npm: a module loaded from a URL has no import map, and JSR's
 * address works only where JSR can be reached. With JSR at hand everywhere, import
 * `jsr:@std/cli@^1/parse-args` instead and delete the types beside this file.
 *
 * @module
 */
// @ts-types="./parse_args.d.ts"
export { parseArgs } from "npm:deno-std@1.4.0/cli/parse_args.js";
