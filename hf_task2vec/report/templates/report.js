"use strict";
// Sorting: by the number or text of a cell; what is unknown stays last; equal rows keep their order.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.querySelectorAll("thead th")];
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const downwards = header.getAttribute("aria-sort") === "ascending";
    const value = (row) => row.cells[column].dataset.value;
    const order = (a, b) => a === "" || b === "" ? (a === "") - (b === "")
      : (downwards ? -1 : 1) * (isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => order(value(a), value(b))));
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", downwards ? "descending" : "ascending");
  }));
}
// Copying: where the browser refuses, the text is selected instead.
for (const copy of document.querySelectorAll("button.copy")) {
  const code = copy.parentElement.querySelector("code");
  copy.hidden = false;
  copy.addEventListener("click", () => navigator.clipboard.writeText(code.textContent).then(
    () => { copy.textContent = "Copied"; },
    () => { getSelection().selectAllChildren(code); copy.textContent = "Selected"; },
  ));
}
