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
  /** Number of the submission that used it last. */
  used: number;
  /** Forgets the bind groups made with it. */
  readonly forget: (() => void)[];
}

/** Free buffers that so many submissions did without are given back to the device. */
const PATIENCE = 256;
/** When more than is in use lies idle, and this many bytes besides, a new buffer is made only after … */
const IDLE_BYTES = 256 << 20;
/** … those have been given back that so many submissions did without. */
const LITTLE_PATIENCE = 4;

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
  /** Bytes of live allocations, as taken from the device. */
  liveBytes = 0;
  #idleBytes = 0;
  readonly #free = new Map<number, Allocation[]>();
  readonly #all = new Set<Allocation>();
  #ids = 0;

  /**
   * @param create Makes a buffer of so many bytes.
   * @param limit The largest buffer that the device makes.
   */
  constructor(readonly create: (bytes: number) => GPUBuffer, readonly limit: number) {}

  /**
   * Takes a buffer.
   *
   * @param bytes How many are needed, at most `limit`.
   * @param serial Number of the submission that is being recorded.
   */
  take(bytes: number, serial: number): Allocation {
    const size = Math.min(sizeClass(bytes), Math.floor(this.limit / 256) * 256);
    let allocation = this.#free.get(size)?.pop();
    if (allocation) {
      this.#idleBytes -= size;
    } else {
      if (this.#idleBytes > this.liveBytes + IDLE_BYTES) this.trim(serial, LITTLE_PATIENCE);
      allocation = this.pin(size);
    }
    allocation.live = true;
    this.liveBytes += size;
    return allocation;
  }

  /** Makes a buffer for as long as the device lives; it does not count as live. */
  pin(size: number): Allocation {
    const buffer = this.create(size);
    const allocation = { id: ++this.#ids, buffer, bytes: size, live: true, used: 0, forget: [] };
    this.#all.add(allocation);
    return allocation;
  }

  /** Puts a buffer back for reuse. */
  release(allocation: Allocation): void {
    allocation.live = false;
    this.liveBytes -= allocation.bytes;
    this.#idleBytes += allocation.bytes;
    const free = this.#free.get(allocation.bytes);
    if (free) free.push(allocation);
    else this.#free.set(allocation.bytes, [allocation]);
  }

  /**
   * Gives back what has been free for long.
   *
   * @param serial Number of the submission that is being recorded.
   * @param patience How many submissions it must have been without use, at least 1.
   */
  trim(serial: number, patience: number = PATIENCE): void {
    for (const [size, free] of this.#free) {
      const kept = free.filter((allocation) => {
        if (allocation.used + patience >= serial) return true;
        this.#idleBytes -= size;
        this.#destroy(allocation);
        return false;
      });
      if (kept.length) this.#free.set(size, kept);
      else this.#free.delete(size);
    }
  }

  /** Gives back everything. */
  destroy(): void {
    for (const allocation of this.#all) this.#destroy(allocation);
    this.#free.clear();
    this.liveBytes = this.#idleBytes = 0;
  }

  #destroy(allocation: Allocation): void {
    for (const forget of allocation.forget) forget();
    allocation.forget.length = 0;
    allocation.live = false;
    allocation.buffer.destroy();
    this.#all.delete(allocation);
  }
}
