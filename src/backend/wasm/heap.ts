/**
 * The allocator over one linear memory of up to 4 GiB.
 *
 * Best fit over a list of free ranges in the order of their addresses, neighbours joined when one is freed: the
 * same calls give the same addresses. A training step frees what it allocated, so that the list stays
 * short and the next step finds the same holes again.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";

const PAGE = 65536;
/** Pages to begin with, the least that the kernels' module is compiled for. */
const FIRST_PAGES = 16;
/** Below lie the kernels' constants; and a pointer of 0 can mean "none". */
const FIRST_ADDRESS = 4096;
/** Every allocation begins at a multiple of so many bytes, a cache line. */
const ALIGNMENT = 64;
/** Bytes at the memory's end that are never handed out: a vector load may begin inside the last allocation and end beyond it. */
const GUARD = 64;
/** The memory grows by an eighth of what it is, within these bounds, or by what is needed. */
const SMALLEST_STEP = 1 << 20;
const LARGEST_STEP = 64 << 20;

interface Range {
  start: number;
  end: number;
}

/** How many MiB, in words. */
export function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 3 : 1)} MiB`;
}

/** Allocates ranges of a WebAssembly memory, which it grows only as needed. */
export class Heap {
  /** The memory that the kernels work in. */
  readonly memory: WebAssembly.Memory;
  /** Bytes now allocated, alignment included. */
  allocatedBytes = 0;

  readonly #maximumPages: number;
  readonly #sizes = new Map<number, number>();
  #free: Range[] = [];
  #f32: Float32Array;
  #u8: Uint8Array;
  #u32: Uint32Array;
  #scratch = 0;
  #scratchBytes = 0;

  /**
   * @param maximumPages The most pages of 64 KiB that it grows to; 65536 (4 GiB) by default.
   * @param shared Whether other threads work in the memory too.
   */
  constructor(maximumPages = 65536, shared = false) {
    [this.memory, this.#maximumPages] = createMemory(maximumPages, shared);
    this.#free = [{ start: FIRST_ADDRESS, end: this.memory.buffer.byteLength - GUARD }];
    this.#f32 = new Float32Array(this.memory.buffer);
    this.#u8 = new Uint8Array(this.memory.buffer);
    this.#u32 = new Uint32Array(this.memory.buffer);
  }

  /** The most bytes that the memory grows to. */
  get maximumBytes(): number {
    return this.#maximumPages * PAGE;
  }

  /** The whole memory as floats; not to be kept over an allocation, which may move it. */
  get f32(): Float32Array {
    if (this.#f32.buffer !== this.memory.buffer) this.#f32 = new Float32Array(this.memory.buffer);
    return this.#f32;
  }

  /** The whole memory as bytes; not to be kept over an allocation. */
  get u8(): Uint8Array {
    if (this.#u8.buffer !== this.memory.buffer) this.#u8 = new Uint8Array(this.memory.buffer);
    return this.#u8;
  }

  /** The whole memory as unsigned integers; not to be kept over an allocation. */
  get u32(): Uint32Array {
    if (this.#u32.buffer !== this.memory.buffer) this.#u32 = new Uint32Array(this.memory.buffer);
    return this.#u32;
  }

  /**
   * Allocates memory of undefined content.
   *
   * @param bytes How many; any number of 0 or more.
   * @returns Its address, a multiple of 64.
   * @throws {WhetError} `resource` if the memory cannot grow so far.
   */
  allocate(bytes: number): number {
    const size = Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);
    const range = this.#bestFit(size) ?? this.#grow(size);
    const start = range.start;
    range.start += size;
    if (range.start === range.end) this.#free.splice(this.#free.indexOf(range), 1);
    this.#sizes.set(start, size);
    this.allocatedBytes += size;
    return start;
  }

  /** Gives back what {@linkcode allocate} gave. */
  free(start: number): void {
    const size = this.#sizes.get(start);
    if (size === undefined) {
      throw new WhetError("disposed", `memory at ${start} is not allocated: it was freed before`);
    }
    this.#sizes.delete(start);
    this.allocatedBytes -= size;
    const end = start + size;
    const at = this.#after(start);
    const before = this.#free[at - 1];
    const behind = this.#free[at];
    if (before?.end === start && behind?.start === end) {
      before.end = behind.end;
      this.#free.splice(at, 1);
    } else if (before?.end === start) before.end = end;
    else if (behind?.start === end) behind.start = start;
    else this.#free.splice(at, 0, { start, end });
  }

  /**
   * Memory for the length of one kernel's call; the next call gets the same.
   *
   * @param bytes How many.
   * @returns Its address.
   */
  scratch(bytes: number): number {
    if (bytes > this.#scratchBytes) {
      this.releaseScratch();
      this.#scratch = this.allocate(bytes);
      this.#scratchBytes = bytes;
    }
    return this.#scratch;
  }

  /** Frees the scratch memory. */
  releaseScratch(): void {
    if (this.#scratchBytes > 0) this.free(this.#scratch);
    this.#scratchBytes = 0;
  }

  /** The smallest free range of at least so many bytes, the first of equals. */
  #bestFit(size: number): Range | undefined {
    let best: Range | undefined;
    let least = Infinity;
    for (const range of this.#free) {
      const length = range.end - range.start;
      if (length >= size && length < least) {
        best = range;
        least = length;
      }
    }
    return best;
  }

  /** Index of the first free range beyond an address. */
  #after(address: number): number {
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#free[middle].start > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Grows the memory until its last free range holds so many bytes. */
  #grow(size: number): Range {
    const held = this.memory.buffer.byteLength;
    const last = this.#free.at(-1);
    const open = last?.end === held - GUARD ? last : undefined;
    const needed = Math.ceil((size - (open ? open.end - open.start : 0)) / PAGE);
    const step = Math.min(LARGEST_STEP, Math.max(SMALLEST_STEP, held / 8)) / PAGE;
    const room = this.#maximumPages - held / PAGE;
    if (
      needed > room ||
      !(this.#growBy(Math.min(room, Math.max(needed, Math.ceil(step)))) || this.#growBy(needed))
    ) {
      throw new WhetError(
        "resource",
        `out of WebAssembly memory: ${mebibytes(size)} wanted, ${mebibytes(this.allocatedBytes)} in use of ` +
          `${mebibytes(held)} held (at most ${mebibytes(this.#maximumPages * PAGE)}); use a smaller batch, ` +
          "a shorter sequence length or a smaller storage format (--weights f16, q8 or q4)",
      );
    }
    const end = this.memory.buffer.byteLength - GUARD;
    if (open) {
      open.end = end;
      return open;
    }
    const range = { start: held - GUARD, end };
    this.#free.push(range);
    return range;
  }

  #growBy(pages: number): boolean {
    try {
      this.memory.grow(pages);
      return true;
    } catch {
      return false;
    }
  }
}

/** Where address space is short (a limited container), a memory with a smaller bound may still be had. */
function createMemory(maximum: number, shared: boolean): [WebAssembly.Memory, maximumPages: number] {
  for (;;) {
    try {
      return [new WebAssembly.Memory({ initial: FIRST_PAGES, maximum, shared }), maximum];
    } catch (cause) {
      if (maximum <= 1024) {
        throw new WhetError(
          "resource",
          "no address space for a WebAssembly memory of 64 MiB: free some memory",
          { cause },
        );
      }
      maximum = Math.ceil(maximum / 2);
    }
  }
}
