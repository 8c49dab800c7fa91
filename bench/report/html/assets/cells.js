// Every field of every record: once what all have in common, then what differs, cell by cell.
function factTable(pairs) {
  return make("table", {}, make("tbody", {}, ...pairs.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, make("bdi", {}, value))))));
}

function buildCells() {
  if (DATA.facts.common.length) byId("common").querySelector(".scroll").append(factTable(DATA.facts.common));
  else byId("common").hidden = true;
  window.addEventListener("hashchange", openCell);
}

function listCells() {
  const rows = new Set(shownRows);
  byId("cell-list").replaceChildren(...DATA.cells.flatMap((cell, place) => (rows.has(cell.row) ? [cellDetails(cell, place)] : [])));
}

function cellDetails(cell, place) {
  const details = make("details", { id: `cell-${cell.id}` },
    make("summary", {}, make("span", { class: "label" }, cell.label), ` · ${cell.status} · `, make("span", { class: "id" }, cell.id)));
  details.addEventListener("toggle", () => {
    if (!details.open || details.dataset.full) return;
    details.dataset.full = "1";
    const own = DATA.facts.own[place].map(([path, value]) => [DATA.facts.paths[path], value]);
    details.append(own.length ? make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Fields of ${cell.label}` }, factTable(own)) : make("p", {}, "This cell has no record: it was not run."));
  });
  return details;
}

function openCell() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (!id.startsWith("cell-")) return;
  if (!byId(id) && DATA.cells.some((cell) => `cell-${cell.id}` === id)) byId("filter-reset").click();
  const details = byId(id);
  if (!details) return;
  details.open = true;
  details.scrollIntoView();
  details.querySelector("summary").focus({ preventScroll: true });
}
