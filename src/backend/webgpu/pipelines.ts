/**
 * Kernels as the device runs them: compiled once per variant, their bindings and parameters read from
 * the WGSL itself, so that a name there is the name in the call.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type { Faults } from "./faults.ts";
import { type GpuFeatures, NO_FEATURES } from "./features.ts";
import { type Constants, expand } from "./template.ts";

/** A `var<storage>` of a kernel. */
export interface Binding {
  /** Its name in the WGSL. */
  readonly name: string;
  /** Its number. */
  readonly index: number;
  /** Whether the kernel writes to it (or only must not bind it as read-only). */
  readonly writes: boolean;
}

/** One compiled variant. */
export interface Kernel {
  /** Its file in `kernels/`. */
  readonly name: string;
  /** Ready to run. */
  readonly pipeline: GPUComputePipeline;
  /** What its bind groups look like. */
  readonly layout: GPUBindGroupLayout;
  /** Its storage bindings, in order. */
  readonly bindings: readonly Binding[];
  /** The fields of its `Params`, each of 4 bytes, in order. */
  readonly fields: readonly { readonly name: string; readonly float: boolean }[];
  /** Bind groups by what they bind. */
  readonly groups: Map<string, GPUBindGroup>;
}

/** Bytes of a uniform binding: room for 64 fields. */
export const PARAMS_BYTES = 256;

const STORAGE = /@group\(0\)\s*@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>\s*(\w+)/g;
const PARAMS = /struct Params \{([^}]*)\}/;
const FIELD = /(\w+)\s*:\s*(u32|f32)/g;

/** Compiles variants on first use and keeps them. */
export class PipelineCache {
  /** Pipelines made so far. */
  created = 0;
  readonly #kernels = new Map<string, Kernel>();
  /** The same by the very object that said which variant: a name is not put together for every call. */
  readonly #found = new WeakMap<Constants, Map<string, Kernel>>();

  /**
   * @param device Where they run.
   * @param faults Who hears of what goes wrong.
   * @param sources The files of `kernels/` by name.
   * @param features What they may use; the constant `SUBGROUPS` tells them.
   */
  constructor(
    readonly device: GPUDevice,
    readonly faults: Faults,
    readonly sources: Readonly<Record<string, string>>,
    readonly features: GpuFeatures = NO_FEATURES,
  ) {}

  /**
   * A compiled variant.
   *
   * @param name The file in `kernels/`.
   * @param constants What the variant is; an object that is passed again, unchanged, is found faster.
   * @param shared Read-only bindings to declare as writable, because their buffer is also written to:
   * WebGPU lets no dispatch use one buffer as both, even where the ranges are apart.
   * @throws {WhetError} `backend` if there is no such kernel or it does not parse.
   */
  get(name: string, constants: Constants, shared: readonly string[] = []): Kernel {
    if (!shared.length) {
      const found = this.#found.get(constants)?.get(name);
      if (found) return found;
    }
    let key = name;
    for (const constant in constants) key += ` ${constant}=${constants[constant]}`;
    for (const binding of shared) key += ` &${binding}`;
    let kernel = this.#kernels.get(key);
    if (!kernel) this.#kernels.set(key, kernel = this.#compile(name, key, constants, shared));
    if (shared.length) return kernel;
    const found = this.#found.get(constants) ?? new Map<string, Kernel>();
    this.#found.set(constants, found.set(name, kernel));
    return kernel;
  }

  #compile(name: string, label: string, constants: Constants, shared: readonly string[]): Kernel {
    const { subgroups: SUBGROUPS, enablesSubgroups } = this.features;
    let code = expand(this.sources, name, { SUBGROUPS, ...constants });
    const used = code.replace(/\/\/.*/g, "");
    // Directives come before everything else, whatever file needs them.
    if (enablesSubgroups && /\bsubgroup\w+\(/.test(used)) code = `enable subgroups;\n${code}`;
    if (/\bf16\b/.test(used)) code = `enable f16;\n${code}`;
    for (const binding of shared) {
      code = code.replace(
        new RegExp(`var<storage, read> ${binding}:`),
        `var<storage, read_write> ${binding}:`,
      );
    }
    const bindings = [...code.matchAll(STORAGE)]
      .map(([, index, access, name]) => ({ name, index: Number(index), writes: access === "read_write" }))
      .sort((a, b) => a.index - b.index);
    const fields = [...(PARAMS.exec(used)?.[1] ?? "").matchAll(FIELD)]
      .map(([, name, type]) => ({ name, float: type === "f32" }));
    if (fields.length * 4 > PARAMS_BYTES) {
      throw new WhetError("backend", `kernels/${name}.wgsl: Params has more than ${PARAMS_BYTES / 4} fields`);
    }
    const { device } = this;
    this.created++;
    return this.faults.guard(["internal", "validation"], `compiling kernel ${label}`, () => {
      const layout = device.createBindGroupLayout({
        label,
        entries: [
          {
            binding: 0,
            visibility: GPUShaderStage.COMPUTE,
            buffer: { type: "uniform", hasDynamicOffset: true },
          },
          ...bindings.map(({ index, writes }): GPUBindGroupLayoutEntry => ({
            binding: index,
            visibility: GPUShaderStage.COMPUTE,
            buffer: { type: writes ? "storage" : "read-only-storage" },
          })),
        ],
      });
      const pipeline = device.createComputePipeline({
        label,
        layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
        compute: { module: device.createShaderModule({ label, code }), entryPoint: "main" },
      });
      return { name, pipeline, layout, bindings, fields, groups: new Map() };
    });
  }
}
