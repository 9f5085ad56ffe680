/**
 * Memory on the device, kept for reuse: a step that repeats meets the same buffers in the same order,
 * and so the bind groups that were made for them.
 *
 * @module
 */

/** A buffer of the pool. */
export interface Block {
  /** Number that no other buffer of this device had or will have. */
  readonly id: number;
  /** The memory. */
  readonly buffer: GPUBuffer;
  /** How much of it there is; a multiple of 256. */
  readonly bytes: number;
  /** Number of the submission that used it last. */
  used: number;
  /** Forgets the bind groups made with it. */
  readonly forget: (() => void)[];
}

/** A buffer while it holds one tensor or one part of a packed weight. */
export interface Allocation {
  /** The buffer, which others will hold later. */
  readonly block: Block;
  /** Whether it does so still. */
  live: boolean;
}

/** Free buffers that so many submissions did without are given back to the device. */
const PATIENCE = 256;
/** Of this size at most, they are kept: made anew now and then, they would cost decoding more than they weigh. */
const LITTLE_BYTES = 64 << 10;
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

/**
 * Buffers by size; of those that are free, the oldest is the first reused. So what a step gets depends on
 * which are free alone, not on the order they were freed in, and the next step gets the same.
 */
export class BufferPool {
  /** Bytes of live allocations, as taken from the device. */
  liveBytes = 0;
  /** Bytes of all buffers, free ones too. */
  heldBytes = 0;
  #idleBytes = 0;
  /** By size, the oldest last. */
  readonly #free = new Map<number, Block[]>();
  readonly #all = new Set<Block>();
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
   * @param loosely Whether one of up to twice the size will do, where it is free: so a step that is a little smaller
   * than one before meets that one's buffers. For what is kept, such as weights, it would be a waste.
   */
  take(bytes: number, serial: number, loosely = false): Allocation {
    const size = Math.min(sizeClass(bytes), Math.floor(this.limit / 256) * 256);
    let block = this.#free.get(size)?.pop() ??
      (loosely ? this.#free.get(this.#larger(size))?.pop() : undefined);
    if (block) {
      this.#idleBytes -= block.bytes;
    } else {
      if (this.#idleBytes > this.liveBytes + IDLE_BYTES) this.trim(serial, LITTLE_PATIENCE);
      block = this.pin(size);
    }
    this.liveBytes += block.bytes;
    return { block, live: true };
  }

  /** The smallest size above, up to twice as much, that a free buffer has; infinite if none has. */
  #larger(size: number): number {
    let best = Infinity;
    for (const [bytes, free] of this.#free) {
      if (bytes > size && bytes <= 2 * size && bytes < best && free.length) best = bytes;
    }
    return best;
  }

  /** Makes a buffer for as long as the device lives; it does not count as live. */
  pin(size: number): Block {
    const block = { id: ++this.#ids, buffer: this.create(size), bytes: size, used: 0, forget: [] };
    this.#all.add(block);
    this.heldBytes += size;
    return block;
  }

  /** Puts a buffer back for reuse. */
  release(allocation: Allocation): void {
    const { block } = allocation;
    allocation.live = false;
    this.liveBytes -= block.bytes;
    this.#idleBytes += block.bytes;
    const free = this.#free.get(block.bytes);
    if (!free) return void this.#free.set(block.bytes, [block]);
    let low = 0, high = free.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (free[middle].id > block.id) low = middle + 1;
      else high = middle;
    }
    free.splice(low, 0, block);
  }

  /**
   * Gives back what has been free for long, but for what is small.
   *
   * @param serial Number of the submission that is being recorded.
   * @param patience How many submissions it must have been without use, at least 1.
   */
  trim(serial: number, patience: number = PATIENCE): void {
    for (const [size, free] of this.#free) {
      if (size <= LITTLE_BYTES) continue;
      const kept = free.filter((block) => {
        if (block.used + patience >= serial) return true;
        this.#idleBytes -= size;
        this.#destroy(block);
        return false;
      });
      if (kept.length) this.#free.set(size, kept);
      else this.#free.delete(size);
    }
  }

  /** Gives back everything. */
  destroy(): void {
    for (const block of this.#all) this.#destroy(block);
    this.#free.clear();
    this.liveBytes = this.#idleBytes = 0;
  }

  #destroy(block: Block): void {
    for (const forget of block.forget) forget();
    block.forget.length = 0;
    block.buffer.destroy();
    this.#all.delete(block);
    this.heldBytes -= block.bytes;
  }
}
