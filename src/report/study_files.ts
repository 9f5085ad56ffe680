/**
 * A study's files: the report, the figures as JSON, the pictures.
 *
 * @module
 */
import { ensureDirectory, join, writeAtomically } from "../format/files.ts";
import { lossCurve } from "./loss_curve.ts";
import { niceWindow } from "./series.ts";
import type { StudyResult } from "./study_result.ts";
import { formatNumber } from "./text.ts";

/**
 * The pictures of the report, which are files of their own too.
 *
 * @param result What was found.
 * @param wanted Steps per mean [about a fortieth of the run: the study's 1,000 for its 60,000].
 * @returns SVG documents by file name; none where nothing was trained.
 */
export function studyPictures(result: StudyResult, wanted?: number): Record<string, string> {
  const { points, evalPoints } = result;
  if (points.length === 0) return {};
  const window = Math.max(1, Math.floor(wanted ?? niceWindow(points.length)));
  const single = window === 1;
  return {
    "loss.svg": lossCurve(points, {
      title: "Loss of every step",
      show: "steps",
      ...(single ? { evalPoints } : {}),
    }),
    "loss-means.svg": lossCurve(points, {
      title: single ? "Loss of every step" : `Mean loss over windows of ${formatNumber(window)} steps`,
      ...{ window, evalPoints, show: "means" },
    }),
  };
}

/**
 * Writes report, figures and pictures; the report comes last.
 *
 * @param out The directory; it is made.
 * @param study What was found, and its page.
 * @returns The report's path.
 * @throws {WhetError} "resource" where the disk is full or permission is missing.
 */
export async function writeStudy(
  out: string,
  { result, report }: { result: StudyResult; report: string },
): Promise<string> {
  await ensureDirectory(out);
  for (const [name, picture] of Object.entries(studyPictures(result))) {
    await writeAtomically(join(out, name), picture);
  }
  await writeAtomically(join(out, "study.json"), `${JSON.stringify(result, null, 2)}\n`);
  const path = join(out, "report.html");
  await writeAtomically(path, report);
  return path;
}
