/**
 * Memory on the device, kept for reuse: a step that repeats meets the same buffers in the same order,
 * and so the bind groups that were made for them.
 *
 * @module
 */

/** A stretch of device memory that holds one tensor or one part of a packed weight. */
export interface Allocation {
  /** Number that no other buffer of this device had or will have. */
  readonly id: number;
  /** The memory. */
  readonly buffer: GPUBuffer;
  /** How much of it there is; a multiple of 256. */
  readonly bytes: number;
  /** False while it waits in the pool. */
  live: boolean;
  /** The submission that used it last; the pending one if it equals {@linkcode BufferPool.serial}. */
  used: number;
  /** Forgets the bind groups made with it. */
  readonly forget: (() => void)[];
}

/** Free buffers that so many submissions did without are given back to the device. */
const PATIENCE = 256;

/**
 * The size that a request is rounded up to, so that similar sizes share buffers: a multiple of 256 and
 * of an eighth of the power of two below, at most 12.5 % too much.
 *
 * @param bytes How many are needed.
 * @returns How many are taken.
 */
export function sizeClass(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(bytes, 1))) - 3));
  return Math.max(256, Math.ceil(bytes / step) * step);
}

/** Buffers by size; the last freed is the first reused. */
export class BufferPool {
  /** Number of the submission that is being recorded. */
  serial = 1;
  /** Bytes of live allocations, as taken from the device. */
  liveBytes = 0;
  readonly #free = new Map<number, Allocation[]>();
  readonly #all = new Set<Allocation>();
  #ids = 0;

  /**
   * @param create Makes a buffer of so many bytes.
   * @param limit The largest buffer that the device makes.
   */
  constructor(readonly create: (bytes: number) => GPUBuffer, readonly limit: number) {}

  /** Takes a buffer of at least so many bytes; `limit` has been checked by the caller. */
  take(bytes: number): Allocation {
    const size = Math.min(sizeClass(bytes), Math.floor(this.limit / 256) * 256);
    let allocation = this.#free.get(size)?.pop();
    if (!allocation) {
      const buffer = this.create(size);
      allocation = { id: ++this.#ids, buffer, bytes: size, live: true, used: 0, forget: [] };
      this.#all.add(allocation);
    }
    allocation.live = true;
    this.liveBytes += size;
    return allocation;
  }

  /** Puts a buffer back for reuse. */
  release(allocation: Allocation): void {
    allocation.live = false;
    this.liveBytes -= allocation.bytes;
    const free = this.#free.get(allocation.bytes);
    if (free) free.push(allocation);
    else this.#free.set(allocation.bytes, [allocation]);
  }

  /** Gives back what has been free for long; to be called between submissions. */
  trim(patience = PATIENCE): void {
    for (const [size, free] of this.#free) {
      // The longest unused lie at the bottom.
      let stale = 0;
      while (stale < free.length && free[stale].used + patience < this.serial) stale++;
      for (const allocation of free.splice(0, stale)) this.#destroy(allocation);
      if (!free.length) this.#free.delete(size);
    }
  }

  /** Gives back everything. */
  destroy(): void {
    for (const allocation of this.#all) this.#destroy(allocation);
    this.#free.clear();
    this.liveBytes = 0;
  }

  #destroy(allocation: Allocation): void {
    for (const forget of allocation.forget) forget();
    allocation.forget.length = 0;
    allocation.live = false;
    allocation.buffer.destroy();
    this.#all.delete(allocation);
  }
}
