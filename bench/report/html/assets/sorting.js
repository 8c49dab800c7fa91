// Sorting by any column; the baselines stay at the end.
function buildTable() {
  const table = byId("results"), body = table.tBodies[0];
  const rows = [...body.rows], fixed = rows.filter((row) => row.classList.contains("baseline"));
  const own = rows.filter((row) => !row.classList.contains("baseline"));
  const value = (row, column) => {
    const cell = row.cells[column], raw = cell.dataset.v ?? cell.textContent.trim();
    return raw === "" || raw === DASH ? null : Number.isNaN(Number(raw)) ? raw : Number(raw);
  };
  const sort = (column, ascending) => {
    const compare = (a, b) => {
      const left = value(a, column), right = value(b, column);
      if (left === null || right === null) return (left === null) - (right === null);
      const order = typeof left === "number" && typeof right === "number" ? left - right
        : String(left).localeCompare(String(right), "en", { numeric: true });
      return ascending ? order : -order;
    };
    body.append(...[...own].sort(compare), ...fixed);
  };
  const published = byId("published-columns");
  published?.addEventListener("change", () => table.classList.toggle("without-published", !published.checked));
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(column, ascending);
    });
  });
}

function filterTable() {
  const shown = new Set(shownRows.map(String));
  for (const row of byId("results").tBodies[0].rows)
    if (row.dataset.row !== undefined) row.hidden = !shown.has(row.dataset.row);
}
