/**
 * Whet's version, the one in deno.json; `deno task check` holds the two together.
 *
 * @module
 */

/** The version. */
export const VERSION = "0.1.0";
