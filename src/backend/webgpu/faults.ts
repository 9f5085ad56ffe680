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

/** How long after a failure `device.lost` may tell of its cause. */
const LOSS_IS_TOLD_MS = 100;
/** What wgpu says of a call on a device that is gone, before or instead of resolving `device.lost`. */
const LOSS = /\bdevice\b.*\blost\b/i;

/** The faults of one device. */
export class Faults {
  #fault?: WhetError;
  #closed = false;
  readonly #scopes = new Set<Promise<void>>();
  readonly #lost: Promise<void>;

  /** @param device Whose faults. */
  constructor(readonly device: GPUDevice) {
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#caught((event as GPUUncapturedErrorEvent).error, "WebGPU reports an error");
    });
    this.#lost = device.lost.then(({ message }) => this.#lose(message));
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

  /**
   * As {@linkcode settled}, after something has failed: if the device was lost, which is told a little after whatever
   * fails because of it, that is known when this resolves.
   */
  async explained(): Promise<void> {
    await this.settled();
    let timer: ReturnType<typeof setTimeout> | undefined;
    await Promise.race([this.#lost, new Promise((resolve) => timer = setTimeout(resolve, LOSS_IS_TOLD_MS))]);
    clearTimeout(timer);
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

  #lose(reason: string): void {
    this.#found(
      new WhetError(
        "backend",
        `the GPU was lost (${
          oneLine(reason)
        }); load the model again, or use another backend (--backend wasm)`,
      ),
    );
  }

  #caught(error: GPUError, what: string): void {
    const message = oneLine(error.message);
    if (LOSS.test(message)) return this.#lose(message);
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

/** A message or an error's without line breaks; a GPUInternalError of Deno 2.9.6 has none (measured). */
export function oneLine(message: unknown): string {
  const text = message instanceof Error ? message.message : String(message ?? "");
  return text.replace(/\s+/g, " ").trim() || "no reason given";
}

/** A number of bytes in words. */
export function mebibytes(bytes: number): string {
  return bytes < 1 << 20 ? `${bytes} bytes` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
