// Points that are clicked on a plot, which is an element of gr.HTML: props.frame has the axes' place in the picture,
// props.reach how far they go from zero.
element.addEventListener("click", (event) => {
  const picture = event.target.closest("svg");
  if (!picture) return;
  const box = picture.getBoundingClientRect(), { left, right, top, bottom } = props.frame, [across, up] = props.reach;
  const x = across * (2 * ((event.clientX - box.left) / box.width - left) / (right - left) - 1);
  const y = up * (1 - 2 * ((event.clientY - box.top) / box.height - top) / (bottom - top));
  if (Math.abs(x) > across || Math.abs(y) > up) return;
  props.value = [...(props.value || []), [Math.round(1e3 * x) / 1e3, Math.round(1e3 * y) / 1e3]];
  trigger("input");
});
