// Strokes of a pen on a pad, which is an element of gr.HTML: points [right, down] in sides of the pad. A stroke that is
// being drawn is no part of the value yet, so that it survives an answer to the last one.
const NS = "http://www.w3.org/2000/svg";
const pad = () => element.querySelector("svg");
let pen, stroke, line;

function add(event) {
  const box = pad().getBoundingClientRect();
  const inside = (at, from, size) => Math.round(1e4 * Math.min(1, Math.max(0, (at - from) / size))) / 1e4;
  stroke.push([inside(event.clientX, box.left, box.width), inside(event.clientY, box.top, box.height)]);
  line.setAttribute("points", [...stroke, stroke.at(-1)].join(" "));
}

element.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || pen !== undefined) return;
  pad().setPointerCapture(event.pointerId);
  [pen, stroke, line] = [event.pointerId, [], pad().appendChild(document.createElementNS(NS, "polyline"))];
  add(event);
});
element.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pen) return;
  const passed = event.getCoalescedEvents?.() ?? [];
  for (const each of passed.length ? passed : [event]) add(each);
});
for (const end of ["pointerup", "pointercancel"]) {
  element.addEventListener(end, (event) => {
    if (event.pointerId !== pen) return;
    pen = undefined;
    line.remove();
    props.value = [...(props.value || []), stroke];
    trigger("input");
  });
}
