/**
 * The errors that Whet throws on purpose.
 *
 * Every message says what went wrong, where (file, field, flag), and what to do about it, in one
 * line, so that the command line can print it as it stands.
 *
 * @module
 */

/** What kind of thing went wrong; see {@linkcode WhetError.code}. */
export type ErrorCode =
  /** An option, flag or argument has a value that makes no sense. */
  | "option"
  /** A file is missing, truncated, or says something that is not true. */
  | "format"
  /** A model and an adapter, tokenizer or checkpoint do not belong together. */
  | "mismatch"
  /** The Hub or another server refused, failed or cut the line. */
  | "network"
  /** No memory, no disk space, no permission, or a limit of the device. */
  | "resource"
  /** The backend asked for is not to be had here, or it failed. */
  | "backend"
  /** Training met a loss or gradient that is not a number. */
  | "diverged"
  /** The object was already disposed. */
  | "disposed"
  /** Known to the contract, not built yet. */
  | "unsupported";

/**
 * The one error class of Whet's interface: a message for people, a code for programs.
 *
 * @example
 * ```ts
 * import { WhetError } from "./errors.ts";
 *
 * try {
 *   throw new WhetError("option", "--rank: expected a whole number of at least 1, got 0");
 * } catch (error) {
 *   if (error instanceof WhetError) console.error(error.code, error.message);
 * }
 * ```
 */
export class WhetError extends Error {
  /** The class's name, as it prints. */
  override readonly name = "WhetError";

  /**
   * An error with a code.
   *
   * @param code What kind of thing went wrong.
   * @param message What went wrong, where, and what to do; one line.
   * @param options The underlying error, as `cause`.
   */
  constructor(readonly code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}
