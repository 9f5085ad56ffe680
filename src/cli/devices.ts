/**
 * `whet devices`.
 *
 * @module
 */
import { type BackendReport, describeBackends } from "../backend/select.ts";
import type { DEVICES } from "./commands.ts";
import type { Values } from "./flags.ts";
import { printLine } from "./output.ts";

/** Tells which backends there are; see `DEVICES` for the flags. */
export async function runDevices(values: Values<typeof DEVICES>): Promise<BackendReport> {
  const report = await describeBackends();
  if (!values.json) printLine(JSON.stringify(report, null, 2));
  return report;
}
