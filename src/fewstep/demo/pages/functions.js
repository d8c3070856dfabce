import { asker, make, path } from "./common.js";

const ACROSS = 5, UP = 8, MOST = 20, WIDE = 480, HIGH = 360, MARGIN = 32;
const NOISE = Number(document.documentElement.dataset.noise);
const find = (id) => document.getElementById(id);
const said = find("said"), points = [];
const right = (x) => MARGIN + ((x + ACROSS) / (2 * ACROSS)) * (WIDE - 2 * MARGIN);
const down = (y) => MARGIN + ((UP - y) / (2 * UP)) * (HIGH - 2 * MARGIN);

function axes() {
  const lines = [];
  for (let x = -4; x <= 4; x += 2) {
    lines.push(make("line", { class: x ? "grid" : "axis", x1: right(x), x2: right(x), y1: down(UP), y2: down(-UP) }));
    lines.push(make("text", { x: right(x), y: HIGH - 8, "text-anchor": "middle" }, `${x}`.replace("-", "−")));
  }
  for (let y = -8; y <= 8; y += 4) {
    lines.push(make("line", { class: y ? "grid" : "axis", x1: right(-5), x2: right(5), y1: down(y), y2: down(y) }));
    lines.push(make("text", { x: MARGIN - 6, y: down(y) + 4, "text-anchor": "end" }, `${y}`.replace("-", "−")));
  }
  return lines;
}

function panel(id, letter, title) {
  const found = make("g"), svg = make("svg", { class: "plot", viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img",
    "aria-label": `${title}: click to add a point` }, ...axes(), found);
  const told = make("figcaption", {}, "\u00a0");
  find("plots").append(make("figure", { class: `card ${letter}`, id }, make("h2", {}, title), svg, told));
  svg.onclick = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    add(((at.x - MARGIN) / (WIDE - 2 * MARGIN)) * 2 * ACROSS - ACROSS, UP - ((at.y - MARGIN) / (HIGH - 2 * MARGIN)) * 2 * UP);
  };
  return { found, told };
}
const panels = {
  learned: panel("learned", "a", "The learner"),
  exact: panel("exact", "b", "The exact posterior"),
};

function add(x, y) {
  if (points.length >= MOST || Math.abs(x) > ACROSS || Math.abs(y) > UP) return;
  points.push([Math.round(1e3 * x) / 1e3, Math.round(1e3 * y) / 1e3]);
  changed();
}

const dots = () => points.map(([x, y]) => make("circle", { class: "point", cx: right(x), cy: down(y), r: 5 }));
const ask = asker("/functions", find("plots"), heard, (why) => tell(why, true));

function tell(text, error = false) {
  said.textContent = text;
  said.className = error ? "error" : "";
}

function changed() {
  find("undo").disabled = find("clear").disabled = !points.length;
  if (points.length) return ask({ points });
  ask(null);
  tell("Click a point.");
  for (const { found, told } of Object.values(panels)) {
    found.replaceChildren();
    told.textContent = "\u00a0";
  }
}

function heard(answer) {
  const curve = (values) => answer.x.map((x, i) => [right(x), down(Math.min(100, Math.max(-100, values[i])))]);
  const percent = (share) => `${Math.round(100 * share)}%`;
  for (const [name, { found, told }] of Object.entries(panels)) {
    const { functions, mean, low, high, line } = answer[name];
    found.replaceChildren(
      make("path", { class: "band", d: `${path([...curve(low), ...curve(high).reverse()])}Z` }),
      ...functions.map((values) => make("path", { class: "one", d: path(curve(values)) })),
      make("path", { class: "mean", d: path(curve(mean)) }), ...dots());
    told.textContent = `${percent(line)} lines, ${percent(1 - line)} sines`;
  }
  const count = points.length === 1 ? "one point" : `${points.length} points`;
  tell(`After ${count}, a line has probability ${answer.exact.line.toFixed(2)}; of the learner's functions `
    + `${percent(answer.learned.line)} are lines.${points.length === MOST ? " No more points are taken." : ""}`);
}

find("undo").onclick = () => { points.pop(); changed(); };
find("clear").onclick = () => { points.length = 0; changed(); };
// Five noisy points of a function such as the learner has seen.
find("fill").onclick = () => {
  const uniform = (low, high) => low + (high - low) * Math.random();
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  const [a, b, amplitude, phase, line] = [
    uniform(-1.2, 1.2), uniform(-2, 2), uniform(1, 5), uniform(0, Math.PI), Math.random() < 0.5,
  ];
  points.length = 0;
  for (let i = 0; i < 5; i++) {
    const x = uniform(-ACROSS, ACROSS), y = (line ? a * x + b : amplitude * Math.sin(x - phase)) + NOISE * normal();
    points.push([x, Math.min(UP, Math.max(-UP, y))]);
  }
  changed();
};
find("form").onsubmit = (event) => {
  event.preventDefault();
  const { x, y } = Object.fromEntries(new FormData(event.target));
  add(Number(x), Number(y));
  event.target.reset();
};
changed();
