/**
 * A study's files: the report, the figures as JSON, the pictures.
 *
 * @module
 */
import { ensureDirectory, join, writeAtomically } from "../format/files.ts";
import { lossCurve } from "./loss_curve.ts";
import { scoreChart } from "./score_chart.ts";
import { niceWindow } from "./series.ts";
import type { StudyResult } from "./study_result.ts";
import { formatNumber } from "./text.ts";

/**
 * The pictures of the report, which are files of their own too.
 *
 * @param result What was found.
 * @param wanted Steps per mean [about a fortieth of the run: the study's 1,000 for its 60,000].
 * @returns SVG documents by file name: loss curves if steps were taken, differences if scores differ.
 */
export function studyPictures(result: StudyResult, wanted?: number): Record<string, string> {
  return { ...lossPictures(result, wanted), ...scorePictures(result) };
}

function lossPictures({ points, evalPoints }: StudyResult, wanted?: number): Record<string, string> {
  if (points.length === 0) return {};
  const window = Math.max(1, Math.floor(wanted ?? niceWindow(points.length)));
  const single = window === 1;
  const steps = "Loss of every step";
  return {
    "loss.svg": lossCurve(points, { title: steps, show: "steps", ...(single ? { evalPoints } : {}) }),
    "loss-means.svg": lossCurve(points, {
      title: single ? steps : `Mean loss over windows of ${formatNumber(window)} steps`,
      ...{ window, evalPoints, show: "means" },
    }),
  };
}

function scorePictures({ scores, answers }: StudyResult): Record<string, string> {
  const differences = answers.map(({ scoreBase, scoreTuned }) => scoreTuned! - scoreBase!)
    .filter(Number.isFinite);
  if (!scores || differences.every((difference) => difference === 0)) return {};
  const { interval, level } = scores;
  return { "scores.svg": scoreChart(differences, { interval, level }) };
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
