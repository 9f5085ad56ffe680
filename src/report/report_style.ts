/**
 * How the report looks: on a screen, light or dark, wide or narrow, and on paper.
 *
 * @module
 */

/** The page's style sheet. */
export const REPORT_STYLE = `
:root {
  color-scheme: light;
  --paper: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #59626e; --line: #dfe3e8;
  --blue: #1f66d1; --blue-wash: #eef4fd; --good: #0f7b53; --bad: #b3245c; --even: #8b95a1;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --paper: #0d1117; --card: #14181f; --ink: #e6e9ee; --soft: #9aa4b2; --line: #2a313c;
    --blue: #6ea8fe; --blue-wash: #16243a; --good: #2f9e73; --bad: #c2477f; --even: #56606e;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, footer { max-width: 56rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding: 2.5rem 0 .5rem; }
.eyebrow { margin: 0; color: var(--blue); font-weight: 600; letter-spacing: .04em; font-size: .85rem; }
h1 { margin: .2rem 0 .8rem; font-size: clamp(1.6rem, 4.5vw, 2.2rem); line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.6rem 0 .8rem; font-size: 1.3rem; line-height: 1.3; }
h3 { margin: 0 0 .3rem; font-size: .85rem; color: var(--soft); font-weight: 600; }
p { margin: 0 0 .8rem; }
.lead { font-size: 1.1rem; max-width: 46rem; }
.note, figcaption { color: var(--soft); font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .8rem; margin: 1.4rem 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem .9rem; }
.tile dt { color: var(--soft); font-size: .85rem; }
.tile dd { margin: .1rem 0 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile dd.note { font-size: .82rem; font-weight: 400; white-space: normal; }
.before, .to { color: var(--soft); font-weight: 400; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scroll + .note { margin-top: .5rem; }
.figures { width: 100%; background: var(--card); border: 1px solid var(--line); }
.figures th, .figures td { padding: .5rem .9rem; border-top: 1px solid var(--line); text-align: right; white-space: nowrap; }
.figures thead th, .figures thead td { border-top: 0; color: var(--soft); font-size: .85rem; font-weight: 600; }
.figures tbody th { text-align: left; font-weight: 500; }
figure { margin: 0 0 1.4rem; }
figure svg { display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: 10px; }
figcaption { margin-top: .4rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0 0 1rem; overflow: hidden; }
.prompt { padding: .8rem 1rem; border-bottom: 1px solid var(--line); }
.turn { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.turn + .turn { margin-top: .4rem; }
.turn b { color: var(--soft); font-size: .85rem; font-weight: 600; margin-right: .4rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; }
.pair > div { padding: .8rem 1rem; min-width: 0; }
.pair .tuned { border-left: 1px solid var(--line); background: var(--blue-wash); }
.tuned h3 { color: var(--blue); }
.said { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.plain .said, .empty { color: var(--soft); }
.empty { font-style: italic; }
.score { float: right; font-weight: 400; font-variant-numeric: tabular-nums; }
.reference { margin: 0; padding: .6rem 1rem; border-top: 1px solid var(--line); font-size: .9rem; color: var(--soft); white-space: pre-wrap; overflow-wrap: anywhere; }
.reference span { font-weight: 600; }
.tally { display: flex; gap: 2px; margin: 1rem 0 .5rem; font-size: .85rem; font-weight: 600; color: #fff; }
.tally span { min-width: 2rem; padding: .25rem .5rem; text-align: center; }
.tally .win { background: var(--good); } .tally .tie { background: var(--even); } .tally .loss { background: var(--bad); }
details { margin: 0 0 1rem; } summary { cursor: pointer; padding: .5rem 0; font-weight: 600; color: var(--blue); }
.printed { display: none; }
.columns .scroll + .scroll { margin-top: 1.2rem; }
.compared thead th { white-space: normal; font-weight: 600; } .compared td { padding-right: 1rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem 2rem; align-items: start; }
.pairs { width: 100%; }
.pairs caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
.pairs th, .pairs td { padding: .3rem 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top; font-weight: 400; overflow-wrap: anywhere; }
.pairs th { color: var(--soft); padding-right: 1rem; white-space: nowrap; }
footer { padding-top: 2rem; padding-bottom: 2.5rem; color: var(--soft); font-size: .9rem; }
@media (max-width: 36rem) {
  .pair { grid-template-columns: 1fr; }
  .pair .tuned { border-left: 0; border-top: 1px solid var(--line); }
}
@media print {
  @page { margin: 16mm; }
  :root { --paper: #fff; }
  body { font-size: 10.5pt; }
  main, footer { max-width: none; padding: 0; }
  header { padding-top: 0; }
  h1 { font-size: 20pt; } h2 { font-size: 14pt; margin-top: 1.6rem; break-after: avoid; } h3 { break-after: avoid; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
  .tile dd { font-size: 12.5pt; } .tile dd.note { font-size: 8pt; }
  .tile, .pair, .reference, .turn, figure, tr { break-inside: avoid; }
  .card { overflow: visible; } .turn:last-child, .prompt, h2 + p, .columns > div { break-after: avoid; }
  figure svg { max-height: 68mm; } figure { margin-bottom: .8rem; }
  details:not([open]) { display: none; } details:not([open]) + .printed { display: block; } summary { display: none; }
  .scroll { overflow: visible; } .figures th, .figures td { padding: .4rem .6rem; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;
