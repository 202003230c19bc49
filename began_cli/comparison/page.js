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
