/**
 * Bodies of requests, within limits.
 *
 * @module
 */
import { ApiError } from "./errors.ts";

/** Seconds that a body has to arrive. */
const SECONDS = 30;

/**
 * Reads a JSON body; no more of it than the limit is ever held.
 *
 * @param request The request.
 * @param most Bytes at most.
 * @param seconds How long it may take to arrive.
 * @returns What it says.
 * @throws {ApiError} 408 where it does not come, 413 where it is longer, 415 where it is something else, 400 where it is no
 * UTF-8 or no JSON.
 */
export async function readJson(request: Request, most: number, seconds: number = SECONDS): Promise<unknown> {
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
  let length = 0, late = false;
  const reader = (request.body ?? ReadableStream.from<Uint8Array>([])).getReader();
  const timer = setTimeout(() => {
    late = true;
    reader.cancel().catch(() => {}); // Ends the read that waits.
  }, seconds * 1000);
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      length += part.value.length;
      if (length > most) {
        reader.cancel().catch(() => {});
        throw tooLong();
      }
      parts.push(part.value);
    }
  } finally {
    clearTimeout(timer);
  }
  if (late) throw new ApiError(408, `the body did not arrive within ${seconds} seconds; send it again`);
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
