// -- plots: hover or focus tells the numbers, the legend shows and hides
const HINT = "Point at a line, or focus the plot and use the arrows.";
const MANY = 12; // lines, from which on they can be searched

const panelsView = (panels) => [make("div", { className: "pair" }, ...panels.plots.map(plotView))];

const plotView = (plot) => {
  const state = { hidden: new Set(), wanted: "", active: null };
  const svg = drawn("svg", { class: "plot", role: "application", tabindex: 0 });
  svg.setAttribute("aria-label", `${plot.title}: ${plot.y.title} over ${plot.x.title}. Left and right lead along a line, up and down to another.`);
  const told = make("output", { className: "told", ariaLive: "polite" }, HINT);
  const redraw = () => drawPlot(plot, state, svg, told);
  const figure = make("figure", { className: "chart" }, make("figcaption", {}, plot.title), plotLegend(plot, state, redraw), svg, told);
  new ResizeObserver(redraw).observe(figure);
  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, (event) => activate(plot, state, svg, told, nearest(state, svg, event)));
  svg.addEventListener("keydown", (event) => moveInPlot(plot, state, svg, told, event));
  svg.addEventListener("focus", () => state.active ?? activate(plot, state, svg, told, state.spots?.[0]));
  return figure;
};

const shownSeries = (plot, state) => plot.series.filter((each) => !state.hidden.has(each.group) && each.name.toLowerCase().includes(state.wanted));

const look = (plot, group) => {
  const i = plot.groups.indexOf(group), last = Math.max(plot.groups.length - 1, 1);
  const style = plot.ordered ? `color: color-mix(in oklab, var(--c1) ${Math.round((100 * i) / last)}%, var(--c0))` : "";
  return { class: `series mark ${group.replaceAll(" ", "-")}`, style, shape: SHAPES[i % SHAPES.length], dash: DASHES[i % DASHES.length] };
};

const plotLegend = (plot, state, redraw) => {
  const bar = make("div", { className: "legend", role: "group", ariaLabel: `Lines of ${plot.title}` });
  for (const group of plot.groups) {
    const count = plot.series.filter((each) => each.group === group).length;
    if (!count) continue;
    const { shape, dash, ...props } = look(plot, group);
    const stroke = drawn("path", { d: "M0,7H26", "stroke-dasharray": dash, class: "stroke" });
    const sample = drawn("svg", { width: 26, height: 14, "aria-hidden": "true", ...props }, stroke, drawn("path", { d: shape(13, 7), class: "dots" }));
    const button = make("button", { type: "button", ariaPressed: "true" }, sample, ` ${group}${count > 1 ? ` (${count})` : ""}`);
    button.addEventListener("click", () => {
      state.hidden[state.hidden.has(group) ? "delete" : "add"](group);
      button.ariaPressed = String(!state.hidden.has(group));
      redraw();
    });
    bar.append(button);
  }
  if (plot.series.length > MANY) {
    const field = make("input", { type: "search", autocomplete: "off" });
    field.addEventListener("input", () => { state.wanted = field.value.trim().toLowerCase(); redraw(); });
    bar.append(make("label", {}, "Name contains ", field));
  }
  return bar;
};

const drawPlot = (plot, state, svg, told) => {
  const width = svg.parentElement.clientWidth;
  if (!width) return;
  const height = Math.round(Math.min(Math.max(width * 0.62, 240), 400)), box = { left: 58, right: width - 14, top: 14, bottom: height - 46 };
  const x = scaled(plot.x, box.left + 8, box.right - 8), y = scaled(plot.y, box.bottom - 6, box.top + 6);
  const inside = fresh("inside");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const clip = drawn("clipPath", { id: inside }, drawn("rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top }));
  const lines = drawn("g", { "clip-path": `url(#${inside})` });
  state.spots = [];
  for (const series of shownSeries(plot, state)) lines.append(drawSeries(plot, state, series, x, y, box));
  svg.replaceChildren(clip, ...drawAxes(plot, x, y, box), lines, drawn("circle", { class: "ring", r: 7, visibility: "hidden" }));
  const same = state.active && state.spots.find((spot) => spot.series === state.active.series && spot.i === state.active.i);
  state.active = null;
  if (same) activate(plot, state, svg, told, same);
  else told.textContent = HINT;
};

const drawAxes = (plot, x, y, box) => {
  const words = (at, text, props) => drawn("text", { x: at[0], y: at[1], ...props }, text);
  const rows = ticksOf(plot.y).flatMap(([value, text]) => [
    drawn("path", { class: "grid", d: `M${box.left},${y(value)}H${box.right}` }),
    words([box.left - 6, y(value) + 4], text, { class: "left" }),
  ]);
  const every = Math.ceil((ticksOf(plot.x).length * 44) / (box.right - box.left));
  const columns = ticksOf(plot.x).filter((_, i) => i % every === 0).flatMap(([value, text]) => [
    drawn("path", { class: "grid", d: `M${x(value)},${box.top}V${box.bottom}` }),
    words([x(value), box.bottom + 16], text, { class: "below" }),
  ]);
  const middle = (box.top + box.bottom) / 2;
  return [...rows, ...columns, words([(box.left + box.right) / 2, box.bottom + 36], plot.x.title, { class: "below" }),
    words([12, middle], plot.y.title, { class: "below", transform: `rotate(-90 12 ${middle})` })];
};

const drawSeries = (plot, state, series, x, y, box) => {
  const { shape, dash, ...props } = look(plot, series.group);
  const held = (at) => Math.min(Math.max(at, box.top), box.bottom);
  const spots = series.points.map((point, i) => ({ series, i, point, x: x(point.x), y: held(point.y === null ? box.top + 8 : y(point.y)) }));
  const there = spots.filter(({ point }) => point.y !== null);
  state.spots.push(...spots);
  const ranges = there.filter(({ point }) => point.low !== null && point.high > point.low).map(({ x: at, point }) => `M${at},${y(point.low)}V${y(point.high)}`);
  const marks = there.map((spot) => (spot.point.star ? STAR : shape)(spot.x, y(spot.point.y)));
  const lost = spots.filter(({ point }) => point.y === null).map((spot) => CROSS(spot.x, spot.y));
  const group = drawn("g", props, drawn("path", { class: "range", d: ranges.join("") }), drawn("path", { class: "dots", d: marks.join("") }), drawn("path", { class: "lost", d: lost.join("") }));
  if (there.length) group.prepend(drawn("path", { class: "stroke", "stroke-dasharray": dash, d: `M${there.map((spot) => `${spot.x},${y(spot.point.y)}`).join("L")}` }));
  for (const spot of spots) spot.group = group;
  return group;
};

const nearest = (state, svg, event) => {
  const frame = svg.getBoundingClientRect();
  const far = (spot) => Math.hypot(spot.x - (event.clientX - frame.left), spot.y - (event.clientY - frame.top));
  return (state.spots ?? []).reduce((best, spot) => (far(spot) < far(best) ? spot : best), state.spots?.[0]);
};

const activate = (plot, state, svg, told, spot) => {
  if (!spot || spot === state.active) return;
  state.active?.group.classList.remove("active");
  state.active = spot;
  spot.group.classList.add("active");
  spot.group.parentElement.append(spot.group);
  const ring = svg.querySelector(".ring");
  for (const [name, value] of Object.entries({ cx: spot.x, cy: spot.y, visibility: "visible" })) ring.setAttribute(name, value);
  told.textContent = pointText(plot, spot);
};

const pointText = (plot, { series, point }) => {
  const where = plot.x.ticks.find(([value]) => value === point.x)?.[1] ?? number(point.x);
  const range = point.low !== null && point.high > point.low ? ` (${number(point.low, 4)} to ${number(point.high, 4)})` : "";
  const what = point.y === null ? "diverged" : `${plot.y.title} ${number(point.y, 4)}${range}`;
  const group = series.group === series.name ? "" : ` · ${series.group}`;
  return `${series.name}${group} · ${plot.x.title} ${where} · ${what}${point.star ? " · best" : ""}`;
};

const moveInPlot = (plot, state, svg, told, event) => {
  const at = state.active ?? state.spots?.[0];
  if (!at || !event.key.startsWith("Arrow")) return;
  event.preventDefault();
  const along = state.spots.filter((spot) => spot.series === at.series);
  const across = state.spots.filter((spot) => spot.point.x === at.point.x).sort((a, b) => compare(a.point.y, b.point.y));
  const lines = { ArrowRight: [along, 1], ArrowLeft: [along, -1], ArrowUp: [across, 1], ArrowDown: [across, -1] };
  const [way, step] = lines[event.key];
  activate(plot, state, svg, told, way[way.indexOf(at) + step]);
};
