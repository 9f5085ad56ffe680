/**
 * Errors as OpenAI's clients expect them: a status, and `{ error: { message, type, param, code } }`.
 *
 * @module
 */
import { WhetError } from "../errors.ts";

/** What a client is told. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  /**
   * @param status HTTP's status.
   * @param message What went wrong and what to do, one line.
   * @param options OpenAI's fields, and headers that go with it.
   */
  constructor(
    readonly status: number,
    message: string,
    readonly options: {
      type?: string;
      param?: string | null;
      code?: string | null;
      headers?: Record<string, string>;
    } = {},
  ) {
    super(message);
  }

  /** OpenAI's object. */
  get body(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    const { type = this.status < 500 ? "invalid_request_error" : "server_error", param = null, code = null } =
      this.options;
    return { error: { message: this.message, type, param, code } };
  }

  /** The answer. */
  response(): Response {
    return Response.json(this.body, { status: this.status, headers: this.options.headers });
  }
}

/** Statuses of Whet's own errors, where a request can be to blame for them. */
const STATUS: Partial<Record<WhetError["code"], number>> = {
  option: 400,
  mismatch: 400,
  format: 502,
  network: 502,
  resource: 503,
  unsupported: 400,
};

/**
 * What a client is told about an error. What nobody foresaw is told to the operator alone.
 *
 * @param error Whatever was thrown.
 * @param log Told about what the client is not.
 */
export function toApiError(error: unknown, log: (error: unknown) => void): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return new ApiError(504, "the request took longer than the server allows; ask for fewer tokens", {
      code: "timeout",
    });
  }
  if (error instanceof DOMException && error.name === "AbortError") {
    return new ApiError(499, "the client went away", { code: "cancelled" }); // nginx's status; nobody reads it.
  }
  if (error instanceof WhetError && error.code === "disposed") {
    return new ApiError(503, "the server is shutting down", { code: "shutting_down" });
  }
  const status = error instanceof WhetError ? STATUS[error.code] : undefined;
  if (status === 400) {
    return new ApiError(400, (error as WhetError).message, { param: paramOf((error as WhetError).message) });
  }
  log(error);
  if (status === 503) {
    return new ApiError(503, "the server has no room for this now; try again later", {
      code: "overloaded",
      headers: { "retry-after": "1" },
    });
  }
  // Paths and addresses of the server's files are in such messages.
  if (status === 502) {
    return new ApiError(502, "the model that was asked for could not be loaded", { code: "model_broken" });
  }
  return new ApiError(500, "something went wrong in the server", { code: "internal_error" });
}

/** OpenAI's name of the field that a message of the library begins with. */
function paramOf(message: string): string | null {
  const names: Record<string, string> = {
    ...{
      prompt: "prompt",
      maxTokens: "max_tokens",
      temperature: "temperature",
      topP: "top_p",
      topK: "top_k",
    },
    ...{ seed: "seed", stop: "stop", repetitionPenalty: "repetition_penalty", model: "model" },
  };
  return names[/^(\w+)/.exec(message)?.[1] ?? ""] ?? null;
}
