/**
 * Stretches of device memory, and the bind groups that hand them to kernels.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import { type DType, SLICE_ALIGNMENT, type Tensor } from "../../tensor/tensor.ts";
import type { Allocation, Block } from "./buffers.ts";
import { describe, type Faults, mebibytes, type Params } from "./faults.ts";
import { type Kernel, PARAMS_BYTES } from "./pipelines.ts";

/** A stretch of a buffer, in bytes. */
export interface Slice {
  /** What it is a part of. */
  readonly block: Block;
  /** Where it begins; a multiple of 256 where a kernel binds it. */
  readonly offset: number;
  /** How long it is. */
  readonly bytes: number;
}

/** What a call binds, by the names in the WGSL; what is absent, the kernel does not touch. */
export type Bindings = Readonly<Record<string, Slice | undefined>>;

/** Bind groups kept at most; beyond, all are made afresh. */
const MAX_GROUPS = 1 << 14;

/** Bytes of a tensor; halves lie two to a word, and a row of them begins with a word of its own. */
export function byteLength(shape: readonly number[], dtype: DType): number {
  const length = shape.reduce((product, extent) => product * extent, 1);
  if (dtype !== "f16") return length * 4;
  const columns = shape.at(-1) ?? 1;
  return columns && length / columns * Math.ceil(columns / 2) * 4;
}

/**
 * The stretch of memory under a tensor or part of it; a tensor of halves has no parts.
 *
 * @param tensor Whose memory.
 * @param first Index of the first element wanted.
 * @param length How many elements.
 * @throws {WhetError} `backend` if the memory was freed, is another backend's, or ends before.
 */
export function slice(tensor: Tensor, first = 0, length: number = tensor.length - first): Slice {
  return stretch(tensor, first, length, SLICE_ALIGNMENT);
}

/**
 * The same where no kernel sees it: what is only written may begin anywhere.
 *
 * @param tensor Whose memory.
 * @throws {WhetError} As {@linkcode slice}.
 */
export function writable(tensor: Tensor): Slice {
  return stretch(tensor, 0, tensor.length, 1);
}

function stretch(tensor: Tensor, first: number, length: number, alignment: number): Slice {
  const allocation = tensor.memory as Allocation;
  const at = tensor.offset + first;
  const { block } = allocation ?? {};
  const halves = tensor.dtype === "f16";
  const bytes = halves ? byteLength(tensor.shape, "f16") : length * 4;
  const wrong = !allocation?.live
    ? "is used, but not in this device's memory"
    : at % alignment
    ? `is bound at ${at}, no multiple of ${alignment}`
    : halves && (at || length !== tensor.length)
    ? "of halves has no parts"
    : at * 4 + bytes > block.bytes
    ? "exceeds its memory"
    : null;
  if (wrong) throw new WhetError("backend", `a tensor [${tensor.shape}] at ${tensor.offset} ${wrong}`);
  return { block, offset: at * 4, bytes };
}

/** What a kernel binds, in the order of its bindings. */
export interface Resolved {
  /** A stretch for each binding. */
  readonly slices: readonly Slice[];
  /** Which of them share a buffer that is written to; null if none does. */
  readonly shared: readonly boolean[] | null;
}

/** Bind groups by kernel and memory, made once. */
export class BindGroups {
  /** Bind groups made so far. */
  created = 0;
  #held = 0;
  readonly #kernels = new Set<Kernel>();

  /**
   * @param device Where they are made.
   * @param faults Who hears of what goes wrong.
   * @param uniforms Where parameters lie.
   * @param limit Bytes of one binding at most.
   * @param nothing Stands in for what a kernel reads and a call does not bind.
   * @param sink Stands in for what a kernel writes and a call does not bind.
   */
  constructor(
    readonly device: GPUDevice,
    readonly faults: Faults,
    readonly uniforms: GPUBuffer,
    readonly limit: number,
    readonly nothing: Block,
    readonly sink: Block,
  ) {}

  /**
   * Finds what each of a kernel's bindings is.
   *
   * @throws {WhetError} `resource` if one is too large; `backend` if an output overlaps something else.
   */
  resolve(kernel: Kernel, bindings: Bindings, params: Params): Resolved {
    const declared = kernel.bindings;
    const slices: Slice[] = [];
    let shared: boolean[] | null = null;
    for (const [i, { name, writes }] of declared.entries()) {
      const a = bindings[name] ?? { block: writes ? this.sink : this.nothing, offset: 0, bytes: 256 };
      if (a.bytes > this.limit) {
        throw new WhetError(
          "resource",
          `${describe(kernel.name, params)}: ${name} has ${mebibytes(a.bytes)}, but this GPU lets a ` +
            `kernel see ${mebibytes(this.limit)} at once; take a smaller batch or sequence length`,
        );
      }
      for (let j = 0; j < i; j++) {
        const b = slices[j];
        if (a.block !== b.block || !(writes || declared[j].writes)) continue;
        const apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
        if (!apart && a.block !== this.sink) {
          throw new WhetError(
            "backend",
            `${describe(kernel.name, params)}: ${
              declared[j].name
            } and ${name} overlap in memory, and one is written to`,
          );
        }
        shared ??= declared.map(() => false);
        shared[i] = shared[j] = true;
      }
      slices.push(a);
    }
    return { slices, shared };
  }

  /** The bind group for a kernel (the variant that may share what is shared) and its memory. */
  get(kernel: Kernel, { slices, shared }: Resolved): GPUBindGroup {
    // Bound to the end of the buffer, a group serves every length; only a buffer that is also bound for
    // writing is bound exactly, for writable ranges must not overlap.
    const sizeOf = ({ block, offset, bytes }: Slice, i: number) =>
      shared?.[i] ? Math.max(bytes, 4) : Math.min(block.bytes - offset, this.limit);
    let key = "";
    for (let i = 0; i < slices.length; i++) {
      const { block, offset } = slices[i];
      key += `${block.id}+${offset} `;
      if (shared?.[i]) key += `:${sizeOf(slices[i], i)} `;
    }
    const known = kernel.groups.get(key);
    if (known) return known;
    if (this.#held >= MAX_GROUPS) this.#forgetAll();
    const sizes = slices.map(sizeOf);
    const entries = slices.map(({ block, offset }, i) => ({
      binding: kernel.bindings[i].index,
      resource: { buffer: block.buffer, offset, size: sizes[i] },
    }));
    const parameters = { buffer: this.uniforms, offset: 0, size: PARAMS_BYTES };
    const group = this.faults.guard(
      ["validation"],
      () => `binding memory to kernel ${kernel.name} (${describeBindings(kernel, slices, sizes)})`,
      () =>
        this.device.createBindGroup({
          label: kernel.name,
          layout: kernel.layout,
          entries: [{ binding: 0, resource: parameters }, ...entries],
        }),
    );
    kernel.groups.set(key, group);
    this.#kernels.add(kernel);
    this.#held++;
    this.created++;
    const forget = () => {
      if (kernel.groups.delete(key)) this.#held--;
    };
    for (const { block } of slices) {
      if (block !== this.sink && block !== this.nothing) block.forget.push(forget);
    }
    return group;
  }

  #forgetAll(): void {
    for (const kernel of this.#kernels) kernel.groups.clear();
    this.#held = 0;
  }
}

/** What is bound, in words. */
function describeBindings({ bindings }: Kernel, slices: readonly Slice[], sizes: readonly number[]): string {
  return bindings.map(({ name }, i) => `${name}: ${sizes[i]} bytes at ${slices[i].offset}`).join(", ");
}
