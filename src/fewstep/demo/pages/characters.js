import { asker, make, path } from "./common.js";

const LETTERS = "ABCDE";
const PEN = 4.75 / 105; // of a side, as wide as Omniglot's
const MOST_STROKES = 64, MOST_POINTS = 4096;
const TITLES = { before: "Before adaptation", latent: "After latent steps", after: "After fine-tuning" };
const find = (id) => document.getElementById(id);
const said = find("said"), stages = find("stages"), movement = find("movement");

class Pad {
  constructor(name, title, changed) {
    this.strokes = [];
    this.changed = changed;
    this.canvas = make("canvas", { role: "img", "aria-label": `${title}: draw here` });
    this.seen = make("img", { alt: "", hidden: "" });
    const clear = make("button", { "aria-label": `Clear ${title}` }, "Clear");
    clear.onclick = () => this.set([]);
    const label = make("span", { class: "name" }, name);
    this.element = make("div", { class: `pad ${name.length === 1 ? name.toLowerCase() : ""}` },
      this.canvas, make("div", {}, label, this.seen, clear));
    this.canvas.onpointerdown = (event) => {
      if (event.button !== 0 || this.strokes.length >= MOST_STROKES) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.pen = event.pointerId;
      this.strokes.push([]);
      this.add(event);
    };
    this.canvas.onpointermove = (event) => {
      if (event.pointerId !== this.pen) return;
      const passed = event.getCoalescedEvents?.() ?? [];
      for (const each of passed.length ? passed : [event]) this.add(each);
    };
    this.canvas.onpointerup = this.canvas.onpointercancel = (event) => {
      if (event.pointerId !== this.pen) return;
      this.pen = undefined;
      this.changed();
    };
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  add(event) {
    const box = this.canvas.getBoundingClientRect();
    const inside = (at, from, size) => Math.round(1e4 * Math.min(1, Math.max(0, (at - from) / size))) / 1e4;
    const points = this.strokes.reduce((sum, stroke) => sum + stroke.length, 0);
    if (points >= MOST_POINTS) return;
    this.strokes.at(-1).push([inside(event.clientX, box.left, box.width), inside(event.clientY, box.top, box.height)]);
    this.draw();
  }

  set(strokes) {
    this.strokes = strokes;
    this.pen = undefined;
    this.seen.hidden = true;
    this.draw();
    this.changed();
  }

  draw() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, side, side);
    context.strokeStyle = getComputedStyle(this.canvas).color;
    context.lineWidth = PEN * side;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.strokes) {
      context.beginPath();
      context.moveTo(stroke[0][0] * side, stroke[0][1] * side);
      for (const [x, y] of stroke) context.lineTo(x * side, y * side);
      context.stroke();
    }
  }

  // What the learner sees: 28 × 28 bytes, 255 for ink.
  show(hex) {
    const canvas = make("canvas", { width: 28, height: 28 }), context = canvas.getContext("2d");
    const image = context.createImageData(28, 28);
    for (let i = 0; i < 28 * 28; i++) {
      const grey = 255 - parseInt(hex.slice(2 * i, 2 * i + 2), 16);
      image.data.set([grey, grey, grey, 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    this.seen.src = canvas.toDataURL();
    this.seen.alt = "as the learner sees it";
    this.seen.hidden = false;
  }
}

const ask = asker("/characters", find("asked"), heard, (why) => tell(why, true));
let pads = [], last;
const query = new Pad("Which is it?", "the query", changed);
find("query").append(query.element);

function tell(text, error = false) {
  said.textContent = text;
  said.className = error ? "error" : "";
  if (error) stages.hidden = movement.hidden = true;
}

function ways(count) {
  while (pads.length > count) pads.pop().element.remove();
  while (pads.length < count) {
    const letter = LETTERS[pads.length];
    pads.push(new Pad(letter, `example ${letter}`, changed));
    find("examples").append(pads.at(-1).element);
  }
  find("more").disabled = count === 5;
  find("fewer").disabled = count === 2;
  changed();
}

function changed() {
  const empty = pads.filter((pad) => !pad.strokes.length).length;
  if (empty || !query.strokes.length) {
    ask(null);
    stages.hidden = movement.hidden = true;
    tell(empty ? `Draw the examples first: ${empty} of ${pads.length} are empty.` : "Now draw one of them again.");
    return;
  }
  ask({ examples: pads.map((pad) => pad.strokes), query: query.strokes });
}

function best(probabilities) {
  return probabilities.indexOf(Math.max(...probabilities));
}

function heard(answer) {
  [...pads, query].forEach((pad, i) => pad.show(answer.seen[i]));
  const final = answer.stages.after, winner = best(final);
  said.replaceChildren("It is ", make("b", { class: `name ${LETTERS[winner].toLowerCase()}` }, LETTERS[winner]),
    `, with probability ${final[winner].toFixed(2)}.`);
  said.className = "";
  stages.replaceChildren(...Object.entries(answer.stages).map(([stage, probabilities]) => {
    const title = stage === "after" && !("latent" in answer.stages) ? "After adaptation" : TITLES[stage];
    const rows = probabilities.map((p, i) => {
      const bar = make("i");
      bar.style.width = `${100 * p}%`;
      return make("li", { class: `${LETTERS[i].toLowerCase()} ${i === best(probabilities) ? "best" : ""}` },
        make("span", { class: "name" }, LETTERS[i]), make("meter-bar", {}, bar), make("span", {}, p.toFixed(3)));
    });
    return make("section", { class: "card", "data-stage": stage }, make("h2", {}, title), make("ol", {}, ...rows));
  }));
  stages.hidden = false;
  movement.hidden = !answer.codes.length;
  if (answer.codes.length) draw(answer.codes, answer.shown);
}

// Codes of the classes: hollow where they begin, filled where latent steps end. Both axes have one scale. Where codes move
// by far less than what lies between them, their paths are drawn longer, and it is said how much.
function draw(codes, shown) {
  last = [codes, shown];
  const [begin, end] = [codes[0], codes.at(-1)];
  const length = (p, q) => Math.hypot(p[0] - q[0], p[1] - q[1]);
  const between = Math.max(...begin.map((p) => Math.max(...begin.map((q) => length(p, q)))));
  const moved = Math.max(...begin.map((p, i) => length(p, end[i])));
  const times = [500, 200, 100, 50, 20, 10, 5, 2].find((k) => k * moved <= 0.35 * between) ?? 1;
  const paths = begin.map((from, i) => codes.map((moment) => from.map((at, k) => at + times * (moment[i][k] - at))));
  const size = [Math.max(280, find("codes").clientWidth), 270], margin = 36, every = paths.flat();
  const low = [0, 1].map((k) => Math.min(...every.map((p) => p[k])));
  const high = [0, 1].map((k) => Math.max(...every.map((p) => p[k])));
  const scale = Math.min(...[0, 1].map((k) => (size[k] - 2 * margin) / Math.max(high[k] - low[k], 1e-9)));
  const at = (p) => [0, 1].map((k) => size[k] / 2 + (k ? -1 : 1) * (p[k] - (low[k] + high[k]) / 2) * scale);
  find("codes").setAttribute("viewBox", `0 0 ${size.join(" ")}`);
  find("codes").replaceChildren(...paths.map((passed, i) => {
    const line = passed.map(at), [from, to] = [line[0], line.at(-1)];
    const far = length(from, to), away = far > 1 ? [0, 1].map((k) => (from[k] - to[k]) / far) : [0, -1];
    return make("g", { class: LETTERS[i].toLowerCase() }, make("path", { d: path(line) }),
      ...line.map(([x, y], step) => make("circle", { cx: x, cy: y, r: step === 0 || step === line.length - 1 ? 5 : 2,
        class: step ? "end" : "" })),
      make("text", { x: from[0] + 17 * away[0], y: from[1] + 17 * away[1] + 5, "text-anchor": "middle" }, LETTERS[i]));
  }));
  movement.querySelector("figcaption").textContent = "One code a class, from where the encoder puts it (hollow) through "
    + `${codes.length - 1} latent steps (filled), on the first two principal components, which have `
    + `${Math.round(100 * shown)}% of the variance.`
    + (times > 1 ? ` Paths are drawn ${times} times as long as they are.` : "");
}

// Characters that look like each other, and the second of them in another hand.
const arc = (x, y, r, from, to) => Array.from({ length: 25 }, (_, i) => {
  const angle = (from + ((to - from) * i) / 24) * Math.PI;
  return [x + r * Math.cos(angle), y + r * Math.sin(angle)];
});
const EXAMPLE = [
  [[[0.25, 0.25], [0.75, 0.25], [0.3, 0.75], [0.8, 0.75]]],
  [[[0.25, 0.25], [0.75, 0.25], [0.3, 0.75], [0.8, 0.75]], [[0.3, 0.5], [0.7, 0.5]]],
  [[...arc(0.5, 0.38, 0.2, -1, 0.5), [0.4, 0.8], [0.75, 0.8]]],
  [[...arc(0.5, 0.38, 0.2, -1, 0.5), [0.4, 0.8]], [[0.25, 0.6], [0.75, 0.6]]],
];
const OTHER_HAND = [[[0.2, 0.34], [0.64, 0.27], [0.74, 0.36], [0.36, 0.76], [0.78, 0.7]], [[0.36, 0.58], [0.68, 0.48]]];

find("more").onclick = () => ways(pads.length + 1);
find("fewer").onclick = () => ways(pads.length - 1);
find("clear").onclick = () => [...pads, query].forEach((pad) => pad.set([]));
find("fill").onclick = () => {
  ways(EXAMPLE.length);
  pads.forEach((pad, i) => pad.set(EXAMPLE[i]));
  query.set(OTHER_HAND);
};
new ResizeObserver(() => movement.hidden || draw(...last)).observe(movement);
matchMedia("(prefers-color-scheme: dark)").onchange = () => [...pads, query].forEach((pad) => pad.draw());
ways(3);
