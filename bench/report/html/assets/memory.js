// What the predicted peak is made of, beside the measured one.
const MOST_BARS = 30;

function buildMemory() {
  byId("phase").addEventListener("change", drawMemory);
}

function memoryRows(phase) {
  return shownRows.flatMap((row) => {
    const place = DATA.rows[row].cells.find((cell) => DATA.cells[cell].memory);
    const memory = place === undefined ? null : DATA.cells[place].memory;
    return memory && (memory.kinds[phase] || memory.measured[phase] !== undefined) ? [{ row, place, memory }] : [];
  });
}

const memorySum = (kinds) => kinds.slice(0, -1).reduce((a, b) => a + b, 0);

function memoryUnit(found, phase) {
  const sizes = found.map(({ memory }) => Math.max(memory.measured[phase] ?? 0, memory.kinds[phase] ? memorySum(memory.kinds[phase]) : 0));
  const most = Math.max(0, ...sizes);
  return most >= 2 ** 30 ? [2 ** 30, "GiB", most] : [2 ** 20, "MiB", most];
}

async function drawMemory() {
  const phase = byId("phase").value, found = memoryRows(phase), plot = byId("memory-plot");
  memoryTable(found, phase);
  const rows = found.slice(0, MOST_BARS);
  if (!rows.length) { if (plot.embedded) plot.embedded.finalize(); plot.replaceChildren(make("p", { class: "note" }, "Nothing was predicted or measured of this phase.")); byId("memory-legend").replaceChildren(); return; }
  const [unit, name, most] = memoryUnit(rows, phase);
  const colours = palette(), narrow = plot.clientWidth < 560;
  const left = narrow ? 12 : Math.min(300, Math.max(...rows.map(({ row }) => DATA.rows[row].label.length)) * 7 + 18);
  const bars = rows.flatMap(({ row, memory }, bar) => (memory.kinds[phase] ?? []).slice(0, -1).map((bytes, kind) => ({
    bar, label: DATA.rows[row].label, kind, name: DATA.kinds[kind], size: bytes / unit,
    words: `${DATA.rows[row].label}: ${DATA.kinds[kind]} ${number(bytes / unit, 2)} ${name}, predicted`,
  })));
  const ticks = rows.flatMap(({ row, memory }, bar) => memory.measured[phase] === undefined ? [] : [{ bar, size: memory.measured[phase] / unit,
    words: `${DATA.rows[row].label}: measured ${number(memory.measured[phase] / unit, 2)} ${name}` }]);
  const domain = rows.map((_, bar) => bar), labels = rows.map(({ row }, bar) => ({ bar, label: DATA.rows[row].label }));
  const ey = { field: "bar", type: "ordinal", scale: { domain, paddingInner: narrow ? 0.6 : 0.3, ...(narrow ? { paddingOuter: 0.4 } : {}) }, axis: null };
  const ex = { field: "size", type: "quantitative", stack: "zero", scale: { domain: [0, (most / unit) * 1.04], nice: false }, axis: { title: `Allocated peak (${name})`, tickCount: narrow ? 4 : 8 } };
  const layer = [
    ...(bars.length ? [{ data: { values: bars }, mark: { type: "bar" }, encoding: { y: ey, x: ex, order: { field: "kind" }, description: { field: "words" },
      color: { field: "kind", type: "ordinal", legend: null, scale: { domain: DATA.kinds.map((_, kind) => kind), range: colours.slice(0, DATA.kinds.length) } } } }] : []),
    ...(ticks.length ? [{ data: { values: ticks }, mark: { type: "tick", color: colour("--ink"), thickness: 3 }, encoding: { y: ey, x: { ...ex, stack: null }, description: { field: "words" } } }] : []),
    { data: { values: labels }, mark: narrow ? { type: "text", align: "left", baseline: "bottom", dy: -9, aria: false } : { type: "text", align: "right", dx: -8, aria: false },
      encoding: { y: ey, x: { value: 0 }, text: { field: "label" } } },
  ];
  const width = Math.max(160, plot.clientWidth - left - FRAME.right);
  await draw(plot, { width, height: rows.length * (narrow ? 38 : 26) + 4, autosize: { type: "none" }, padding: { ...FRAME, left }, layer },
    `Memory of ${counted(rows.length, "row")} by kind.`);
  byId("memory-legend").replaceChildren(
    ...DATA.kinds.map((kind, place) => make("li", {}, swatch("square", colours[place], colours[place]), `${kind} (predicted)`)),
    ...(ticks.length ? [make("li", {}, swatch("line", colour("--ink"), "none"), "measured")] : []),
  );
}

function memoryTable(found, phase) {
  const [unit, name] = memoryUnit(found, phase);
  const shown = found.slice(0, 200), size = (bytes) => (bytes === undefined ? DASH : number(bytes / unit, unit === 2 ** 30 ? 2 : 1));
  const heads = ["Cell", ...DATA.kinds, "allocated, predicted", "reserved, predicted", "allocated, measured", "process, predicted", "process, measured", "host, measured", "Cell id"];
  const head = make("thead", {}, make("tr", {}, ...heads.map((words, i) => make("th", { scope: "col", class: i && i < heads.length - 1 ? "num" : null }, words))));
  const body = make("tbody", {}, ...shown.map(({ row, place, memory }) => {
    const kinds = memory.kinds[phase] ?? DATA.kinds.map(() => undefined).concat([undefined]);
    const total = memory.kinds[phase] ? memorySum(kinds) : undefined;
    const values = [...kinds.slice(0, -1), total, kinds[kinds.length - 1], memory.measured[phase], memory.needed, memory.process, memory.host];
    return make("tr", {}, make("th", { scope: "row" }, DATA.rows[row].label), ...values.map((bytes) => make("td", { class: "num" }, size(bytes))), make("td", {}, cellLink(place)));
  }));
  byId("memory-table").replaceChildren(make("caption", { class: "note" }, `${name}; process and host over all phases`), head, body);
  const cut = found.length > MOST_BARS ? ` The plot shows the first ${MOST_BARS} of ${found.length} rows; filter to see others.` : "";
  byId("memory-note").textContent = `Predicted: for a CUDA GPU, by the cell's estimate, whatever device the cell ran on; by kind: at the moment of the highest allocated memory. Process, predicted: the higher reserved peak and the CUDA context. Of several seeds the first is shown. ${DASH}: not measured on this device.${cut}`;
}
