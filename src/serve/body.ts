/**
 * Bodies of requests, within limits.
 *
 * @module
 */
import { ApiError } from "./errors.ts";

/**
 * Reads a JSON body; no more of it than the limit is ever held.
 *
 * @param request The request.
 * @param most Bytes at most.
 * @returns What it says.
 * @throws {ApiError} 413 where it is longer, 415 where it is something else, 400 where it is no UTF-8 or no JSON.
 */
export async function readJson(request: Request, most: number): Promise<unknown> {
  const type = request.headers.get("content-type") ?? "application/json";
  if (!/^application\/json\b/i.test(type)) {
    throw new ApiError(415, "the body must be JSON: send content-type: application/json");
  }
  const encoding = request.headers.get("content-encoding") ?? "identity";
  if (encoding.toLowerCase() !== "identity") {
    throw new ApiError(415, "the body must not be compressed: leave content-encoding out");
  }
  const tooLong = () => new ApiError(413, `the body is longer than the ${most} bytes that this server takes`);
  if (Number(request.headers.get("content-length") ?? 0) > most) throw tooLong();
  const parts: Uint8Array[] = [];
  let length = 0;
  // Leaving the loop early cancels the stream.
  for await (const part of request.body ?? []) {
    length += part.length;
    if (length > most) throw tooLong();
    parts.push(part);
  }
  const bytes = new Uint8Array(length);
  for (let at = 0, i = 0; i < parts.length; at += parts[i++].length) bytes.set(parts[i], at);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new ApiError(400, "the body is not valid UTF-8");
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(400, "the body is not valid JSON");
  }
}
