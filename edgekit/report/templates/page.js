"use strict";

// A click on a header sorts by its column; a second one turns the order round. Rows without a number come last.
function sortBy(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const column = header.cellIndex;
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  const numeric = header.classList.contains("number");
  const value = (row) => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent;
    return cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
  };
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = numeric ? x - y : x.localeCompare(y, undefined, { numeric: true });
    return ascending ? order : -order;
  };
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  body.append(...[...body.rows].sort(compare));
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}

// A point of a plot shows its words under the plot: by pointer, by a tap, or by the keyboard.
function showPoint(event) {
  const point = event.target.closest(".point");
  const shown = point && point.closest("figure").querySelector(".shown");
  if (!shown) return;
  for (const other of point.closest("svg").querySelectorAll(".chosen")) other.classList.remove("chosen");
  point.classList.add("chosen");
  shown.textContent = point.dataset.tip;
}

for (const kind of ["pointerover", "click", "focusin"]) document.addEventListener(kind, showPoint);

document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  const data = document.getElementById("data").textContent;
  link.href = URL.createObjectURL(new Blob([data], { type: "application/json" }));
  link.download = "report.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

// What is closed would not be printed.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const panel of closed) panel.open = true;
});
addEventListener("afterprint", () => {
  for (const panel of closed) panel.open = false;
});
