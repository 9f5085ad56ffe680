/**
 * Who may ask: an API key, and other sites' pages.
 *
 * @module
 */
import { ApiError } from "./errors.ts";

/**
 * Makes the check of an API key. What takes the same time whatever is sent is the comparison of digests.
 *
 * @param key The key; none lets everybody in.
 * @returns Throws {@linkcode ApiError} 401 for a request without it.
 */
export function keyCheck(key: string | undefined): (request: Request) => Promise<void> {
  if (key === undefined) return () => Promise.resolve();
  const digest = async (text: string) =>
    new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  const expected = digest(key);
  return async ({ headers }) => {
    const [, given = ""] = /^Bearer (.*)$/i.exec(headers.get("authorization") ?? "") ?? [];
    const [a, b] = [await expected, await digest(given)];
    let differs = 0;
    for (let i = 0; i < a.length; i++) differs |= a[i] ^ b[i];
    if (differs === 0) return;
    throw new ApiError(
      401,
      given ? "the API key is not the server's" : "send the API key as Authorization: Bearer KEY",
      {
        type: "authentication_error",
        code: "invalid_api_key",
        headers: { "www-authenticate": "Bearer" },
      },
    );
  };
}

/**
 * Whether a path is for those who have the key.
 *
 * @param path A request's.
 */
export function needsKey(path: string): boolean {
  return path.startsWith("/v1/") || path === "/metrics";
}

/**
 * The headers that let another site's page read an answer.
 *
 * @param origin Which site asks, if one does.
 * @param allowed Sites that may, or "*" for all; none where it is not given.
 */
export function corsHeaders(
  origin: string | null,
  allowed: readonly string[] | "*" | undefined,
): Record<string, string> {
  if (!allowed || origin === null) return {};
  const expose = { "access-control-expose-headers": "retry-after" }; // OpenAI's client wants to know.
  if (allowed === "*") return { "access-control-allow-origin": "*", ...expose };
  return allowed.includes(origin)
    ? { "access-control-allow-origin": origin, ...expose, vary: "origin" }
    : { vary: "origin" };
}
