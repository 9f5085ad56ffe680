/**
 * A process of its own that resolves one Hub id, for tests of permissions, variables and two at once.
 *
 * Arguments: the id and the options of `resolveHub` as JSON. Prints the directory, or `code: message`.
 *
 * @module
 */

import { resolveHub } from "../../src/format/hub.ts";
import { WhetError } from "../../src/errors.ts";

const [id, options] = Deno.args;
try {
  console.log(await resolveHub(id, JSON.parse(options)));
} catch (error) {
  console.log(error instanceof WhetError ? `${error.code}: ${error.message}` : error);
}
