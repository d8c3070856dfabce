"use strict";
// Headers of sortable tables become buttons. Without this script the tables stand in the order that they were written in.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.querySelectorAll("th")];
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const text = head.dataset.kind === "text";
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : text;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const valued = [...body.rows].map((row) => {
        const value = row.querySelectorAll(":scope > :not(.drawn)")[place].dataset.value;
        return { row, value: value === undefined || text ? value : Number(value) };
      });
      const compare = (a, b) => (text ? a.localeCompare(b, "en", { numeric: true }) : a - b);
      valued.sort((a, b) => {
        if (a.value === undefined || b.value === undefined) return (a.value === undefined) - (b.value === undefined);
        return up ? compare(a.value, b.value) : compare(b.value, a.value);
      });
      body.append(...valued.map((one) => one.row));
    });
  });
}
