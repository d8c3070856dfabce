// What both pages do: ask the server, and make elements.

export function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "circle", "line", "text", "polygon"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// The answer to the last question that was asked; of earlier ones, which may come late, nothing is heard.
export function asker(path, place, heard, failed) {
  let last = new AbortController();
  return async (question) => {
    last.abort();
    place.ariaBusy = question !== null;
    if (question === null) return;
    const mine = (last = new AbortController());
    try {
      const reply = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(question),
        signal: mine.signal,
      });
      const answer = await reply.json();
      if (mine.signal.aborted) return;
      reply.ok ? heard(answer) : failed(answer.error);
    } catch {
      if (!mine.signal.aborted) failed("The demo does not answer: has it been stopped?");
    }
    if (!mine.signal.aborted) place.ariaBusy = false;
  };
}

export const path = (points) => "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
