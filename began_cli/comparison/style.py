"""How the page looks, and what its table headings do."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #5b6470; --line: #d5d9df;
  --shade: #f3f5f7; --good: #116329; --bad: #b3261e; --half: #8a5a00; --note: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #15181c; --soft: #9aa4b0;
  --line: #363c44; --shade: #1e2329; --good: #6fcf87; --bad: #ff8a80; --half: #e3b341;
  --note: #3a2f10; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .2rem 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
p { margin: .3rem 0 .6rem; overflow-wrap: anywhere; }
.warning { background: var(--note); border-left: 4px solid var(--half); padding: .4rem .7rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; }
th, td { padding: .3rem .65rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; white-space: nowrap; }
thead th { vertical-align: bottom; background: var(--shade); }
tbody th, tfoot th { font-weight: 600; position: sticky; left: 0; background: var(--paper); }
tfoot td, tfoot th { color: var(--soft); }
.number { text-align: right; }
.folder { color: var(--soft); }
.finished { color: var(--good); } .failed { color: var(--bad); } .stopped { color: var(--half); }
.no-checkpoint { color: var(--bad); }
td.failed, td.stopped { white-space: normal; min-width: 14rem; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit; }
th button::after { content: " \\2195"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: " \\2191"; color: inherit; }
th[aria-sort=descending] button::after { content: " \\2193"; color: inherit; }
.over { font-weight: 400; color: var(--soft); border-left: 1px solid var(--line); }
thead td { background: var(--shade); }
.plots { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
.plot svg { width: 100%; max-width: 36rem; height: auto; display: block; }
.plot svg * { stroke-linejoin: round; stroke-linecap: butt; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .4rem 0; padding: 0;
  list-style: none; font-size: .87rem; }
.legend svg { margin-right: .4rem; vertical-align: middle; }
.sheets { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; max-width: 100%; }
figure img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; }
@media (max-width: 600px) { .sheets { gap: .75rem .5rem; }
  .sheets figure { max-width: calc(50% - .25rem); } figure img { image-rendering: auto; } }
figcaption { font-size: .87rem; margin-top: .25rem; overflow-wrap: anywhere; }
details { margin: 2rem 0 1rem; } summary { cursor: pointer; }
"""

SCRIPT = """
"use strict";
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, row = head.parentElement;
    const body = head.closest("table").tBodies[0], i = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of row.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const known = cell => cell.textContent !== "–";
    const value = cell => cell.dataset.sort ?? cell.textContent;
    const compare = (a, b) => a !== "" && b !== "" && isFinite(a) && isFinite(b)
      ? a - b : a.localeCompare(b);
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [a.cells[i], b.cells[i]];
      if (!known(x) || !known(y)) return known(y) - known(x);
      return compare(value(x), value(y)) * (down ? -1 : 1);
    });
    body.append(...rows);
  });
}
"""
