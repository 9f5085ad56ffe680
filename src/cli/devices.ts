/**
 * `whet devices`.
 *
 * @module
 */
import { type BackendDescriptions, describeBackends } from "../backend/select.ts";
import type { DEVICES } from "./command_flags.ts";
import type { Values } from "./flags.ts";
import { printLine } from "./output.ts";

/** Tells which backends there are; see `DEVICES` for the flags. */
export async function runDevices(values: Values<typeof DEVICES>): Promise<BackendDescriptions> {
  const found = await describeBackends();
  if (!values.json) printLine(describe(found));
  return found;
}

function describe({ auto, reason, webgpu, wasm }: BackendDescriptions): string {
  const lines = [`auto    ${auto}: ${reason}`];
  if (webgpu) {
    lines.push(`webgpu  ${webgpu.description}${webgpu.software ? " (software)" : ""}`);
    lines.push(`        features: ${webgpu.features.join(", ") || "none"}`);
    const limits = Object.entries(webgpu.limits).filter(([name]) =>
      /Buffer(Size|BindingSize)$|^maxCompute/.test(name)
    );
    for (const [name, limit] of limits) lines.push(`        ${name}: ${limit}`);
  } else {
    lines.push("webgpu  none");
  }
  lines.push(`wasm    ${wasm.description}; at most ${wasm.maximumBytes / 2 ** 30} GiB`);
  if (wasm.instructionSet) {
    const { active, gain } = wasm.turbo;
    lines.push(
      `        turbo: ${active ? "active" : "off"} (tiles for 256 bits run at ${gain} × the others' speed)`,
    );
  }
  return lines.join("\n");
}
