// Data of the page and small helpers. Text goes into the page by textContent only.
const DATA = JSON.parse(document.getElementById("data").textContent);
const AXES = new Map(DATA.axes.map((axis) => [axis.key, axis]));
const DASH = "—";
// Okabe and Ito's colours, told apart with any colour vision; each category also has a shape or a dash of its own.
const LIGHT = ["#0072B2", "#B34D00", "#007A5A", "#A3477B", "#5B5B00", "#2B6CC4", "#6B3FA0", "#5A5A5A"];
const DARK = ["#56B4E9", "#F0A03C", "#35C79B", "#E39AC4", "#F0E442", "#8FB8FF", "#B79AF0", "#BDBDBD"];
const SHAPES = ["circle", "square", "triangle-up", "triangle-down", "triangle-right", "triangle-left", "stroke", "arrow"];
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function option(value, words, selected = false) {
  const made = make("option", { value }, words);
  made.selected = selected;
  return made;
}

function number(value, digits) {
  if (value === null || value === undefined) return DASH;
  const text = value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return (/^-[0.,]*$/.test(text) ? text.slice(1) : text).replace("-", "−");
}

// As in the table, or to three digits where that would say little of a small value.
function shown(value, axis) {
  const size = Math.abs(value ?? 0), small = size > 0 && size < 10 ** (1 - axis.decimals);
  return number(value, small ? Math.min(12, 2 - Math.floor(Math.log10(size))) : axis.decimals);
}

const withUnit = (value, axis) => `${shown(value, axis)}${axis.unit ? ` ${axis.unit}` : ""}`;
const isDark = () => window.matchMedia("(prefers-color-scheme: dark)").matches && !window.matchMedia("print").matches;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const palette = () => (isDark() ? DARK : LIGHT);
const counted = (n, noun) => `${n.toLocaleString("en-US")} ${noun}${n === 1 ? "" : "s"}`;

function cellLink(place) {
  const cell = DATA.cells[place];
  return make("a", { class: "id", href: `#cell-${cell.id}` }, cell.id);
}

// Shapes as Vega draws them, for legends.
const PATHS = {
  circle: "M8 2.5a5.5 5.5 0 1 0 .01 0Z", square: "M3 3h10v10H3Z", "triangle-up": "M8 2 14 13H2Z", "triangle-down": "M8 14 2 3h12Z",
  "triangle-right": "M14 8 3 14V2Z", "triangle-left": "M2 8 13 2v12Z", stroke: "M2 6.5h12v3H2Z", arrow: "M8 1.5 12 8H9.5v6h-3V8H4Z",
  diamond: "M8 1.5 14 8 8 14.5 2 8Z", cross: "M3 3 13 13M13 3 3 13", line: "M1 8h14", upright: "M8 1v14",
};

function swatch(shape, stroke, fill, dash = "") {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", PATHS[shape]);
  const open = ["cross", "line", "upright"].includes(shape);
  path.setAttribute("fill", open ? "none" : fill);
  path.setAttribute("stroke", stroke);
  path.setAttribute("stroke-width", open ? "2.5" : "1.5");
  if (dash) path.setAttribute("stroke-dasharray", dash);
  svg.append(path);
  return svg;
}

// A plot of the given specification in ``element``; expressions are interpreted, so that no code is made of text.
async function draw(element, spec, description) {
  const soft = colour("--soft"), line = colour("--line"), ink = colour("--ink");
  const font = getComputedStyle(document.body).fontFamily;
  const config = {
    background: "transparent", font, view: { stroke: line },
    axis: { labelColor: soft, titleColor: ink, gridColor: line, gridOpacity: 0.6, domainColor: soft, tickColor: soft,
      labelFontSize: 12, titleFontSize: 13, titleFontWeight: 600, titlePadding: 10, labelLimit: 190 },
    text: { color: ink, fontSize: 11.5 },
  };
  if (element.embedded) element.embedded.finalize();
  element.embedded = await vegaEmbed(element, { $schema: "https://vega.github.io/schema/vega-lite/v6.json", config, description, ...spec }, {
    mode: "vega-lite", renderer: "svg", actions: false, tooltip: false, defaultStyle: false, ast: true,
  });
  return element.embedded.view;
}
