/**
 * What goes wrong on the device, which WebGPU reports later and elsewhere, as exceptions: the first
 * fault is thrown at the next call that asks, and at every one after, for results may be wrong from then
 * on.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";

/** What something was called with, by name. */
export type Params = Readonly<Record<string, number>>;

/** The faults of one device. */
export class Faults {
  #fault?: WhetError;
  #closed = false;
  readonly #scopes = new Set<Promise<void>>();

  /** @param device Whose faults. */
  constructor(readonly device: GPUDevice) {
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#caught((event as GPUUncapturedErrorEvent).error, "WebGPU reports an error");
    });
    device.lost.then(({ message }) => {
      const reason = oneLine(message);
      this.#found(
        new WhetError("backend", `the GPU was lost (${reason}): start again from the last checkpoint`),
      );
    });
  }

  /**
   * Runs something under error scopes.
   *
   * @param filters Which kinds of errors it may cause.
   * @param what What was being done, for the message.
   * @param work What to run.
   * @returns What `work` returned.
   */
  guard<T>(filters: readonly GPUErrorFilter[], what: string | (() => string), work: () => T): T {
    for (const filter of filters) this.device.pushErrorScope(filter);
    try {
      return work();
    } finally {
      for (const _ of filters) {
        const scope = this.device.popErrorScope().then((error) => {
          if (error) this.#caught(error, typeof what === "string" ? what : what());
        }, () => {}) // a lost device says so itself
          .finally(() => this.#scopes.delete(scope));
        this.#scopes.add(scope);
      }
    }
  }

  /** Resolves when every error scope so far has told what it caught. */
  async settled(): Promise<void> {
    await Promise.all(this.#scopes);
  }

  /** Throws what was found so far, and after {@linkcode close}. */
  check(): void {
    if (this.#closed) throw new WhetError("disposed", "this WebGPU backend was disposed");
    if (this.#fault) throw this.#fault;
  }

  /** What is found from now on is the disposal's doing. */
  close(): void {
    this.#closed = true;
  }

  #caught(error: GPUError, what: string): void {
    const message = oneLine(error.message);
    this.#found(
      error instanceof GPUOutOfMemoryError
        ? new WhetError(
          "resource",
          `${what}: the GPU is out of memory; take a smaller batch, or weights in f16, q8 or q4 (${message})`,
        )
        : new WhetError("backend", `${what}: ${message}`),
    );
  }

  #found(fault: WhetError): void {
    if (!this.#closed) this.#fault ??= fault;
  }
}

/** A kernel and its sizes in words. */
export function describe(kernel: string, params: Params): string {
  return `${kernel} (${Object.entries(params).map(([name, value]) => `${name}=${value}`).join(", ")})`;
}

/** A submission in words: of many kernels, the first few kinds. */
export function describeAll(recorded: readonly { kernel: string; params: Params }[]): string {
  const kinds = new Map<string, string>();
  for (const { kernel, params } of recorded) {
    if (!kinds.has(kernel)) kinds.set(kernel, describe(kernel, params));
  }
  const shown = [...kinds.values()].slice(0, 3).join(", ");
  if (recorded.length <= 1) return shown || "a copy";
  return `${recorded.length} kernels, among them ${shown}`;
}

/** A message or an error's without line breaks. */
export function oneLine(message: unknown): string {
  const text = message instanceof Error ? message.message : String(message);
  return text.replace(/\s+/g, " ").trim() || "no reason given";
}

/** A number of bytes in words. */
export function mebibytes(bytes: number): string {
  return bytes < 1 << 20 ? `${bytes} bytes` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
