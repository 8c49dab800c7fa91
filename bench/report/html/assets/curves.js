// Training curves of the cells that are chosen.
const DASHES = [[], [7, 3], [2, 2], [9, 3, 2, 3]];
const FIRST = 8;
const curveCells = new Set();
let curveSteps = [], readPlace = -1;
let curvePlaces = DATA.cells.map((_, place) => place).filter((place) => DATA.cells[place].curve?.length);
const curveOrder = new Map(curvePlaces.map((place, order) => [place, order]));

function buildCurves() {
  if (!curvePlaces.length) { byId("training").replaceChildren(make("h2", { id: "training-h" }, "Training curves"), make("p", {}, "No cell has one.")); return; }
  for (const place of curvePlaces.slice(0, FIRST)) curveCells.add(place);
  byId("loss-log").addEventListener("change", drawCurves);
  byId("curves-step").addEventListener("input", () => readCurves(Number(byId("curves-step").value)));
  byId("curves-none").addEventListener("click", () => { curveCells.clear(); listCurves(); drawCurves(); });
  byId("curves-first").addEventListener("click", () => {
    curveCells.clear();
    shownCurves().slice(0, FIRST).forEach((place) => curveCells.add(place));
    listCurves(); drawCurves();
  });
}

const curveColour = (place) => palette()[curveOrder.get(place) % LIGHT.length];
const curveDash = (place) => DASHES[Math.floor(curveOrder.get(place) / LIGHT.length) % DASHES.length];
function shownCurves() { const rows = new Set(shownRows); return curvePlaces.filter((place) => rows.has(DATA.cells[place].row)); }

function listCurves() {
  if (!curvePlaces.length) return;
  byId("curves-cells").replaceChildren(...shownCurves().map((place) => {
    const box = make("input", { type: "checkbox", value: String(place) });
    box.checked = curveCells.has(place);
    box.addEventListener("change", () => { if (box.checked) curveCells.add(place); else curveCells.delete(place); drawCurves(); });
    return make("label", {}, box, make("span", {}, swatch("line", curveColour(place), "none", curveDash(place).map((n) => n / 2).join(" ")), `${DATA.cells[place].label} `), cellLink(place));
  }));
}

async function drawCurves() {
  if (!curvePlaces.length) return;
  const plot = byId("curves-plot"), chosenPlaces = shownCurves().filter((place) => curveCells.has(place));
  const values = chosenPlaces.flatMap((place) => DATA.cells[place].curve.map(([step, loss, lr]) => ({ step, loss, lr, place })));
  for (const id of ["curves-reader", "curves-scroll"]) byId(id).hidden = !values.length;
  if (!values.length) { if (plot.embedded) plot.embedded.finalize(); plot.replaceChildren(make("p", { class: "note" }, "Choose cells below.")); return; }
  const log = byId("loss-log").checked && values.every((value) => value.loss > 0);
  const width = Math.max(180, plot.clientWidth - FRAME.left - FRAME.right);
  const layer = chosenPlaces.map((place) => ({
    data: { values: DATA.cells[place].curve.map(([step, loss]) => ({ step, loss })) },
    mark: { type: "line", ...(DATA.cells[place].curve.length < 3 ? { point: { filled: true, color: curveColour(place) } } : {}), color: curveColour(place), strokeDash: curveDash(place), strokeWidth: 2, description: `Training loss of ${DATA.cells[place].label}` },
    encoding: {
      x: { field: "step", type: "quantitative", axis: { title: "Optimizer step", tickCount: width < 420 ? 4 : 8 }, scale: { nice: false } },
      y: { field: "loss", type: "quantitative", axis: { title: "Training loss", tickCount: 6 }, scale: log ? { type: "log" } : { zero: false } },
    },
  }));
  const kept = readPlace >= 0 && readPlace < curveSteps.length - 1 ? curveSteps[readPlace] : Infinity;
  curveSteps = [...new Set(values.map((value) => value.step))].sort((a, b) => a - b);
  layer.push({ data: { values: [{}] }, transform: [{ calculate: "at", as: "step" }], mark: { type: "rule", color: colour("--soft"), strokeDash: [4, 3], aria: false },
    encoding: { x: { field: "step", type: "quantitative" } } });
  const view = await draw(plot, { params: [{ name: "at", value: curveSteps.at(-1) }], width, height: 300, autosize: { type: "none" }, padding: FRAME, layer }, `Training loss of ${counted(chosenPlaces.length, "cell")}; the table below has the numbers.`);
  const read = (event) => readCurves(nearestStep(view.scale("x").invert(event.clientX - plot.getBoundingClientRect().left - FRAME.left)));
  plot.onpointermove = read;
  plot.onpointerdown = read;
  byId("curves-step").max = String(curveSteps.length - 1);
  readCurves(nearestStep(kept));
}

const nearestStep = (wanted) => curveSteps.reduce((best, step, place) => (Math.abs(step - wanted) < Math.abs(curveSteps[best] - wanted) ? place : best), wanted === Infinity ? curveSteps.length - 1 : 0);

// The losses at a step, or at the last one before it where a cell has none there: on the rule and in the table.
function readCurves(place) {
  const slider = byId("curves-step"), step = curveSteps[readPlace = place];
  slider.value = String(place);
  slider.setAttribute("aria-valuetext", `step ${step}`);
  byId("curves-at").textContent = step.toLocaleString("en-US");
  byId("curves-plot").embedded.view.signal("at", step).runAsync();
  const rows = shownCurves().filter((cell) => curveCells.has(cell)).map((cell) => {
    const curve = DATA.cells[cell].curve, at = curve.filter(([own]) => own <= step).at(-1), least = curve.reduce((a, b) => (b[1] < a[1] ? b : a));
    return make("tr", {}, make("th", { scope: "row" }, swatch("line", curveColour(cell), "none", curveDash(cell).map((n) => n / 2).join(" ")), ` ${DATA.cells[cell].label}`),
      ...(at ? [number(at[1], 4), at[2].toPrecision(3)] : [DASH, DASH]).map((text) => make("td", { class: "num" }, text)),
      ...[`${number(least[1], 4)} (${least[0]})`, `${number(curve.at(-1)[1], 4)} (${curve.at(-1)[0]})`].map((text) => make("td", { class: "num" }, text)), make("td", {}, cellLink(cell)));
  });
  const heads = ["Cell", `Loss at step ${step}`, "Learning rate there", "Lowest loss (step)", "Last loss (step)", "Cell id"];
  byId("curves-table").replaceChildren(make("caption", { class: "note" }, "Training loss of the chosen cells"),
    make("thead", {}, make("tr", {}, ...heads.map((words, i) => make("th", { scope: "col", class: i && i < heads.length - 1 ? "num" : null }, words)))), make("tbody", {}, ...rows));
}
