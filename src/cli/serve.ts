/**
 * `whet serve`.
 *
 * @module
 */
import { WhetError } from "../errors.ts";

/** Says that there is no server yet. */
export function runServe(): Promise<never> {
  return Promise.reject(
    new WhetError(
      "unsupported",
      "serve is not built yet; examples/edge.ts shows how to stream generations under deno serve",
    ),
  );
}
