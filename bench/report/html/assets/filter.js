// Which rows are shown, everywhere on the page: by part, axis, method, status and text.
const listeners = [];
const chosen = new Map();
let shownRows = DATA.rows.map((_, place) => place);
const onFilter = (listener) => listeners.push(listener);

function filterKeys() {
  const values = new Map();
  for (const row of DATA.rows)
    for (const [key, value] of Object.entries(row.keys)) {
      if (!values.has(key)) values.set(key, []);
      if (!values.get(key).includes(value)) values.get(key).push(value);
    }
  return [...values].filter(([, found]) => found.length > 1);
}

function addSelect(form, key, words, values) {
  if (values.length < 2) return;
  const select = make("select", { "data-filter": key }, option("", "all"), ...values.map((value) => option(value, value)));
  select.addEventListener("change", () => { chosen.set(key, select.value); applyFilter(); });
  form.append(make("label", {}, words, select));
}

function unique(lists) { return [...new Set(lists.flat())]; }

function buildFilter() {
  const form = byId("filter-form");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const [key, values] of filterKeys()) addSelect(form, `key:${key}`, key, values);
  addSelect(form, "method", "method", unique(DATA.rows.map((row) => row.methods)));
  addSelect(form, "status", "status", unique(DATA.rows.map((row) => row.statuses)));
  const search = make("input", { type: "search", "data-filter": "text", autocomplete: "off" });
  search.addEventListener("input", () => { chosen.set("text", search.value.trim().toLowerCase()); applyFilter(); });
  const reset = make("button", { type: "button", id: "filter-reset" }, "Show all");
  reset.addEventListener("click", () => { chosen.clear(); form.reset(); applyFilter(); });
  form.append(make("label", {}, "label or cell id", search), reset);
}

function agrees(row) {
  for (const [key, wanted] of chosen) {
    if (!wanted) continue;
    if (key === "method" && !row.methods.includes(wanted)) return false;
    if (key === "status" && !row.statuses.includes(wanted)) return false;
    if (key.startsWith("key:") && row.keys[key.slice(4)] !== wanted) return false;
    const names = [row.label, ...row.cells.map((place) => DATA.cells[place].id)];
    if (key === "text" && !names.some((name) => name.toLowerCase().includes(wanted))) return false;
  }
  return true;
}

function applyFilter() {
  shownRows = DATA.rows.map((_, place) => place).filter((place) => agrees(DATA.rows[place]));
  byId("filter-count").textContent = shownRows.length === DATA.rows.length
    ? `All ${counted(DATA.rows.length, "row")} shown.` : `${shownRows.length} of ${counted(DATA.rows.length, "row")} shown.`;
  for (const listener of listeners) listener();
}
