// The plot of any cost or score against another, and the front of what is shown.
const FRAME = { left: 66, right: 18, top: 14, bottom: 52 };
const NEAR = "dominated, but not significantly", BEATEN = "significantly dominated", FRONT = "on the front";
let points = [];

function buildFront() {
  for (const [id, first] of [["x-axis", DATA.first.x], ["y-axis", DATA.first.y ?? DATA.first.x]]) {
    const group = (label, kept) => {
      const options = DATA.axes.filter(kept).map((axis) => option(axis.key, axis.title, axis.key === first));
      return options.length ? make("optgroup", { label }, ...options) : null;
    };
    byId(id).append(...[group("Costs", (axis) => !axis.score), group("Scores", (axis) => axis.score)].filter(Boolean));
    byId(id).addEventListener("change", () => { suggestLog(); drawFront(); });
  }
  const keys = filterKeys().filter(([, values]) => values.length <= LIGHT.length);
  const most = Math.max(0, ...keys.map(([, values]) => values.length)), first = keys.find(([, values]) => values.length === most)?.[0];
  byId("colour-by").append(option("", "None"), ...keys.map(([key]) => option(key, key, key === first)));
  const published = DATA.rows.some((row) => Object.keys(row.published).length);
  byId("with-published").closest("label").hidden = !published;
  for (const id of ["colour-by", "x-log", "with-published"]) byId(id).addEventListener("change", drawFront);
  suggestLog();
}

function suggestLog() {
  const values = DATA.rows.map((row) => row.values[byId("x-axis").value]).filter((value) => value !== undefined);
  byId("x-log").disabled = !values.length || Math.min(...values) <= 0;
  byId("x-log").checked = !byId("x-log").disabled && Math.max(...values) / Math.min(...values) > 100;
}

function categories() {
  const key = byId("colour-by").value;
  return key ? [key, filterKeys().find(([name]) => name === key)[1]] : ["", [""]];
}

function makePoints(x, y) {
  const [key, values] = categories();
  const found = [];
  for (const place of shownRows) {
    const row = DATA.rows[place];
    const category = Math.max(0, values.indexOf(key ? row.keys[key] : ""));
    const interval = row.intervals[y.key] ?? null;
    const base = { row: place, label: row.label, field: row.field ?? "", category };
    const px = row.values[x.key], py = row.values[y.key];
    if (px !== undefined && py !== undefined)
      found.push({ ...base, kind: x.key.includes(":") || y.key.includes(":") ? "predicted" : "measured", x: px, y: py,
        low: interval?.[0] ?? py, high: interval?.[1] ?? py });
    else if (row.status && row.statuses.some((status) => status !== "not run" && status !== "stale"))
      found.push({ ...base, kind: "failed", x: px ?? null, y: py ?? null });
    if (byId("with-published").checked && row.published[x.metric] !== undefined && row.published[y.metric] !== undefined)
      found.push({ ...base, kind: "published", x: row.published[x.metric], y: row.published[y.metric] });
  }
  return found;
}

const priorOf = (row) => DATA.floors.own[row] ?? DATA.floors;
const floorOf = (point, y) => priorOf(point.row).values[y.key];
const MOST_FLOORS = 4;

// The priors to draw: of each task and test set its own; none where cells have many different ones.
function floorLines(y) {
  const found = new Map();
  for (const place of shownRows) {
    const { called, values } = priorOf(place), name = [called, DATA.rows[place].field].filter(Boolean).join(", ");
    if (values[y.key] !== undefined) found.set(`${name} ${shown(values[y.key], y)}`, values[y.key]);
  }
  return found.size > MOST_FLOORS ? [] : [...found].map(([words, value]) => ({ y: value, words }));
}

// On the front: no other point of the same task and test set is as good in both and better in one; nothing below the
// prior's score is on it.
function markFront(found, x, y) {
  const sx = x.lower ? 1 : -1, sy = y.lower ? 1 : -1;
  const beats = (a, b) => a.field === b.field && sx * a.x <= sx * b.x && sy * a.y <= sy * b.y && (a.x !== b.x || a.y !== b.y);
  const clearly = (a, b) => beats(a, b) && (y.lower ? a.high < b.low : a.low > b.high);
  for (const point of found) {
    const floor = floorOf(point, y), below = floor !== undefined && point.y <= floor;
    point.below = below;
    point.unsure = floor !== undefined && !below && point.low <= floor;
    if (below || found.some((other) => clearly(other, point))) point.place = BEATEN;
    else point.place = found.some((other) => beats(other, point)) ? NEAR : FRONT;
  }
  return found.filter((point) => point.place === FRONT).sort((a, b) => a.x - b.x);
}

function extent(values, log, share) {
  let low = Math.min(...values), high = Math.max(...values);
  if (log) {
    const factor = Math.max(high / low, 1.3) ** share;
    return [low / factor, high * factor];
  }
  const room = (high - low || Math.abs(high) || 1) * share;
  low = low >= 0 && low - room < 0 ? 0 : low - room;
  return [low, high + room];
}

// Labels of the front that cover neither a point nor each other, as places in the units of the axes.
function placeLabels(wanted, every, scaleX, scaleY, width, height) {
  const taken = every.map((p) => [scaleX.to(p.x) - 6, scaleY.to(p.y) - 6, scaleX.to(p.x) + 6, scaleY.to(p.y) + 6]);
  const labels = [];
  for (const point of wanted) {
    const w = point.label.length * 6.3 + 4, px = scaleX.to(point.x), py = scaleY.to(point.y);
    const tries = [[px + 8, py - 19], [px - w / 2, py - 24], [px - w - 8, py - 19], [px + 8, py + 6], [px - w - 8, py + 6],
      [px - w / 2, py + 10], [px + 10, py - 7], [px - w - 10, py - 7]];
    for (const [left, top] of tries) {
      const box = [left, top, left + w, top + 14];
      const inside = left >= 2 && box[2] <= width - 2 && top >= 2 && box[3] <= height - 2;
      if (!inside || taken.some((t) => t[0] < box[2] && box[0] < t[2] && t[1] < box[3] && box[1] < t[3])) continue;
      taken.push(box);
      labels.push({ x: scaleX.from(left), y: scaleY.from(top + 11), label: point.label });
      break;
    }
  }
  return labels;
}

function linear([low, high], from, to, log = false) {
  const f = log ? Math.log : (value) => value, g = log ? Math.exp : (value) => value;
  return {
    to: (value) => from + ((f(value) - f(low)) / (f(high) - f(low))) * (to - from),
    from: (pixel) => g(f(low) + ((pixel - from) / (to - from)) * (f(high) - f(low))),
  };
}

async function drawFront() {
  const x = AXES.get(byId("x-axis").value), y = AXES.get(byId("y-axis").value), plot = byId("front-plot");
  if (!x || !y) { byId("front-words").textContent = "Nothing was measured or predicted yet."; return; }
  points = makePoints(x, y);
  const ours = points.filter((p) => p.kind === "measured" || p.kind === "predicted");
  const theirs = points.filter((p) => p.kind === "published");
  const front = markFront(ours, x, y), floors = floorLines(y);
  const width = Math.max(180, plot.clientWidth - FRAME.left - FRAME.right), height = width < 420 ? 320 : 430;
  const log = byId("x-log").checked && !byId("x-log").disabled;
  const xs = [...ours, ...theirs].map((p) => p.x).concat(points.filter((p) => p.kind === "failed" && p.x !== null).map((p) => p.x));
  const ys = [...ours, ...theirs].flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]).concat(floors.map((floor) => floor.y));
  if (!xs.length || !ys.length) { emptyFront(plot, x, y); return; }
  const dx = extent(xs, log, 0.08), dy = extent(ys, false, 0.08);
  const scaleX = linear(dx, 0, width, log), scaleY = linear(dy, height, 0);
  for (const point of points.filter((p) => p.kind === "failed")) {
    point.x = point.x ?? scaleX.from(x.lower ? width - 10 : 10);
    point.y = point.y ?? scaleY.from(y.lower ? 10 : height - 10);
  }
  points.forEach((point, place) => { point.place_of = place; });
  const labels = placeLabels(front, points, scaleX, scaleY, width, height);
  const spec = frontSpec({ x, y, dx, dy, log, width, height, front, labels, floors });
  const view = await draw(plot, spec, `${y.title} against ${x.title}: ${counted(ours.length, "row")}, ${front.length} on the front.`);
  attachCard(plot, view, x, y);
  frontLegend(x, y);
  frontWords(front, ours, x, y);
}

function emptyFront(plot, x, y) {
  if (plot.embedded) plot.embedded.finalize();
  plot.replaceChildren();
  byId("front-legend").replaceChildren();
  byId("front-words").textContent = `None of the rows shown has both ${x.title} and ${y.title}.`;
}

function frontSpec({ x, y, dx, dy, log, width, height, front, labels, floors }) {
  const colours = palette(), page = colour("--page"), soft = colour("--soft"), orange = isDark() ? "#FFB27A" : "#A84300";
  const bad = colour("--bad");
  const look = points.map((p) => ({
    ...p,
    stroke: p.kind === "published" ? orange : p.kind === "failed" ? bad : colours[p.category],
    fill: p.kind === "measured" ? colours[p.category] : p.kind === "failed" ? bad : page,
    shape: p.kind === "published" ? "diamond" : p.kind === "failed" ? "M-.6-.6L.6.6M.6-.6L-.6.6" : SHAPES[p.category],
    opacity: p.place === BEATEN ? 0.5 : 1, size: p.kind === "failed" ? 320 : p.place === FRONT ? 130 : 80,
    words: `${p.label}, ${p.kind}${p.place ? `, ${p.place}` : ""}: ${x.title} ${shown(p.x, x)}, ${y.title} ${shown(p.y, y)}`,
  }));
  const ex = { field: "x", type: "quantitative", scale: { domain: dx, nice: false, ...(log ? { type: "log" } : { zero: false }) },
    axis: { title: x.title, tickCount: width < 420 ? 4 : 8, labelOverlap: true } };
  const ey = { field: "y", type: "quantitative", scale: { domain: dy, nice: false, zero: false }, axis: { title: y.title, tickCount: 7 } };
  const quiet = { aria: false, clip: true };
  const raw = (field) => ({ field, type: "nominal", scale: null, legend: null });
  const layer = [];
  if (floors.length)
    layer.push({ data: { values: floors }, mark: { type: "rule", strokeDash: [6, 4], color: bad, strokeWidth: 1.5, ...quiet }, encoding: { y: ey } },
      { data: { values: floors.map((floor) => ({ ...floor, x: dx[1] })) },
        mark: { type: "text", align: "right", dx: -4, dy: -6, color: bad, ...quiet }, encoding: { x: ex, y: ey, text: { field: "words" } } });
  const step = x.lower === y.lower ? "step" : x.lower ? "step-after" : "step-before";
  layer.push(
    { data: { values: front }, mark: { type: "line", interpolate: step === "step" ? "linear" : step, color: soft, strokeWidth: 1.5, strokeDash: [3, 3], ...quiet },
      encoding: { x: ex, y: ey, order: { field: "x" }, detail: { field: "field", type: "nominal" } } },
    { data: { values: look.filter((p) => p.low !== undefined && p.low !== p.high) }, mark: { type: "rule", strokeWidth: 1.25, ...quiet },
      encoding: { x: ex, y: { ...ey, field: "low" }, y2: { field: "high" }, stroke: raw("stroke"), opacity: { field: "opacity", type: "quantitative", scale: null, legend: null } } },
    { name: "points", data: { values: look }, mark: { type: "point", filled: true, strokeWidth: 2 },
      encoding: { x: ex, y: ey, stroke: raw("stroke"), fill: raw("fill"), shape: raw("shape"), description: { field: "words", type: "nominal" },
        opacity: { field: "opacity", type: "quantitative", scale: null, legend: null }, size: { field: "size", type: "quantitative", scale: null, legend: null } } },
    { data: { values: labels }, mark: { type: "text", align: "left", baseline: "alphabetic", stroke: page, strokeWidth: 4, strokeOpacity: 0.85, ...quiet }, encoding: { x: ex, y: ey, text: { field: "label" } } },
    { data: { values: labels }, mark: { type: "text", align: "left", baseline: "alphabetic", ...quiet }, encoding: { x: ex, y: ey, text: { field: "label" } } },
  );
  return { width, height, autosize: { type: "none" }, padding: FRAME, layer };
}

// The facts of the point under the pointer, or of the one that the keyboard reached; a click keeps them there.
function attachCard(plot, view, x, y) {
  const card = byId("card"), room = plot.parentElement;
  let kept = false;
  const show = (point, left, top) => {
    card.replaceChildren(...facts(point, x, y));
    card.hidden = false;
    const right = left + 14 + card.offsetWidth <= room.clientWidth, most = room.clientWidth - card.offsetWidth;
    const beside = right || left - card.offsetWidth - 14 >= 0;
    card.style.left = `${Math.max(0, right ? left + 14 : Math.min(left - card.offsetWidth - 14, most))}px`;
    card.style.top = `${beside ? Math.max(0, Math.min(top + 14, room.clientHeight - card.offsetHeight)) : top + 14}px`;
  };
  const hide = () => { kept = false; card.hidden = true; };
  const leave = (event) => { if (!kept && !card.contains(event.relatedTarget)) hide(); };
  const at = (event, item) => {
    const point = item?.datum?.place_of === undefined ? null : points[item.datum.place_of];
    const box = room.getBoundingClientRect();
    if (event.type === "mousemove" && kept) return;
    if (point) show(point, event.clientX - box.left, event.clientY - box.top); else hide();
    kept = Boolean(point) && event.type === "click";
  };
  hide();
  view.addEventListener("mousemove", at);
  view.addEventListener("click", at);
  plot.onmouseleave = leave;
  card.onmouseleave = leave;
  card.onfocusout = (event) => { if (!card.contains(event.relatedTarget)) hide(); };
  room.onkeydown = (event) => { if (event.key === "Escape") hide(); };
  for (const node of plot.querySelectorAll("[aria-roledescription='point']")) {
    const place = node.__data__?.datum?.place_of;
    if (place === undefined) continue;
    node.setAttribute("tabindex", "0");
    node.addEventListener("focus", () => {
      const box = room.getBoundingClientRect(), own = node.getBoundingClientRect();
      show(points[place], own.right - box.left, own.bottom - box.top);
    });
    node.addEventListener("blur", leave);
  }
}

function facts(point, x, y) {
  const row = DATA.rows[point.row], list = make("dl"), prior = priorOf(point.row).called.toLowerCase();
  const add = (name, value) => list.append(make("dt", {}, name), make("dd", {}, value));
  const interval = row.intervals[y.key];
  const said = { measured: "measured", predicted: "predicted", published: "published, not ours", failed: row.status };
  add("Values", `${said[point.kind]}${point.place ? `; ${point.below ? `not above ${prior}` : point.place}` : ""}`);
  if (point.unsure) add("Baseline", `not significantly above ${prior} (${shown(floorOf(point, y), y)})`);
  if (point.kind !== "failed") { add(x.title, shown(point.x, x)); add(y.title, shown(point.y, y)); }
  if (interval && point.kind !== "published") add("95 % CI", `${shown(interval[0], y)} to ${shown(interval[1], y)}`);
  for (const axis of DATA.axes)
    if (row.values[axis.key] !== undefined && axis.key !== x.key && axis.key !== y.key) add(axis.title, shown(row.values[axis.key], axis));
  for (const [key, value] of Object.entries(row.keys)) add(key, value);
  add("Seeds", String(row.seeds));
  add(row.cells.length > 1 ? "Cells" : "Cell", make("span", {}, ...row.cells.flatMap((cell) => [cellLink(cell), " "])));
  return [make("strong", {}, row.label), list];
}

function frontLegend() {
  const [key, values] = categories(), colours = palette(), items = [];
  const kinds = new Set(points.map((point) => point.kind)), page = colour("--page"), soft = colour("--soft");
  const add = (icon, words) => items.push(make("li", {}, icon, words));
  if (key) values.forEach((value, place) => {
    if (points.some((p) => p.category === place)) add(swatch(SHAPES[place], colours[place], colours[place]), `${key}: ${value}`);
  });
  if (points.some((p) => p.low !== undefined && p.low !== p.high)) add(swatch("upright", soft, "none"), "95 % CI");
  if (kinds.has("measured") && kinds.has("predicted")) add(swatch("circle", soft, soft), "measured");
  if (kinds.has("predicted")) add(swatch("circle", soft, page), "hollow: predicted, not measured");
  if (kinds.has("published")) add(swatch("diamond", isDark() ? "#FFB27A" : "#A84300", page), "published");
  if (kinds.has("failed")) add(swatch("cross", colour("--bad"), "none"), "failed (at the edge where a value is missing)");
  if (points.some((p) => p.place === FRONT)) add(swatch("line", soft, "none", "3 3"), "front");
  if (points.some((p) => p.place === BEATEN)) items.push(make("li", {}, "faded: significantly dominated, or at/below baseline"));
  byId("front-legend").replaceChildren(...items);
}

function frontWords(front, ours, x, y) {
  const words = byId("front-words"), near = ours.filter((point) => point.place === NEAR);
  const prior = (p) => priorOf(p.row).called.toLowerCase();
  const links = (p) => DATA.rows[p.row].cells.flatMap((c, i) => [i ? " " : "", cellLink(c)]);
  const list = (some) => some.flatMap((p, i) => [i ? ", " : "", `${p.label} (${withUnit(p.x, x)}; ${withUnit(p.y, y)}${p.unsure ? `; not significantly above ${prior(p)}` : ""}) `, ...links(p)]);
  const none = (some) => (some.length && some.every((p) => p.below) ? `no row: none is above ${prior(some[0])}` : "no row");
  words.replaceChildren();
  for (const field of new Set(ours.map((p) => p.field))) {
    const own = front.filter((p) => p.field === field);
    words.append(field ? `On the front of ${field}: ` : "On the front: ", ...(own.length ? list(own) : [none(ours.filter((p) => p.field === field))]), ". ");
  }
  if (near.length && near.length <= 8) words.append("Dominated, but not significantly (intervals overlap): ", ...list(near), ".");
  else if (near.length) words.append(`${near.length} more rows are dominated, but not significantly.`);
}
