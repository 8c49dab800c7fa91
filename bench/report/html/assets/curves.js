// Training curves of the cells that are chosen.
const DASHES = [[], [7, 3], [2, 2], [9, 3, 2, 3]];
const FIRST = 8;
const curveCells = new Set();
let curvePlaces = DATA.cells.map((_, place) => place).filter((place) => DATA.cells[place].curve?.length);
const curveOrder = new Map(curvePlaces.map((place, order) => [place, order]));

function buildCurves() {
  if (!curvePlaces.length) { byId("training").replaceChildren(make("h2", { id: "training-h" }, "Training curves"), make("p", {}, "No cell has one.")); return; }
  for (const place of curvePlaces.slice(0, FIRST)) curveCells.add(place);
  byId("loss-log").addEventListener("change", drawCurves);
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
  if (!values.length) { if (plot.embedded) plot.embedded.finalize(); plot.replaceChildren(make("p", { class: "note" }, "Choose cells below.")); return; }
  const log = byId("loss-log").checked && values.every((value) => value.loss > 0);
  const width = Math.max(180, plot.clientWidth - FRAME.left - FRAME.right);
  const layer = chosenPlaces.map((place) => ({
    data: { values: DATA.cells[place].curve.map(([step, loss]) => ({ step, loss })) },
    mark: { type: "line", color: curveColour(place), strokeDash: curveDash(place), strokeWidth: 2, description: `Training loss of ${DATA.cells[place].label}` },
    encoding: {
      x: { field: "step", type: "quantitative", axis: { title: "Optimizer step", tickCount: width < 420 ? 4 : 8 }, scale: { nice: false } },
      y: { field: "loss", type: "quantitative", axis: { title: "Training loss", tickCount: 6 }, scale: log ? { type: "log" } : { zero: false } },
    },
  }));
  await draw(plot, { width, height: 300, autosize: { type: "none" }, padding: FRAME, layer }, `Training loss of ${counted(chosenPlaces.length, "cell")}.`);
}
