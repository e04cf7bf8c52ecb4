"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // Theme: the system's, until the button says otherwise; nothing is kept outside the page.
  const root = document.documentElement;
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
  });
  system.addEventListener("change", label);
  label();
  button.hidden = false;

  // Sorting: by the number or text of a cell; what is unknown stays last; equal rows keep their order.
  const compare = (type) => (a, b) =>
    type === "text" ? a.localeCompare(b, "en", { numeric: true }) : Number(a) - Number(b);
  for (const table of document.querySelectorAll("table.sortable")) {
    const headers = [...table.querySelectorAll("thead th")];
    const body = table.tBodies[0];
    table.querySelector(".sorts").hidden = false;
    headers[0].setAttribute("aria-sort", "ascending");
    headers.forEach((header, column) => {
      const control = header.querySelector("button");
      control.addEventListener("click", () => {
        const downwards = header.getAttribute("aria-sort") === "ascending";
        const order = compare(control.dataset.sort);
        const value = (row) => row.cells[column].dataset.value;
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === "" || y === "") return (x === "") - (y === "");
          return downwards ? order(y, x) : order(x, y);
        });
        body.append(...rows);
        headers.forEach((other) => other.removeAttribute("aria-sort"));
        const direction = downwards ? "descending" : "ascending";
        header.setAttribute("aria-sort", direction);
        byId("sorted").textContent = `Sorted by ${control.textContent}, ${direction}`;
      });
    });
  }

  // Copying: where the browser refuses, the text is selected instead.
  for (const copy of document.querySelectorAll("button.copy")) {
    const code = copy.parentElement.querySelector("code");
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      let said = "Copied";
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        getSelection().selectAllChildren(code);
        said = "Selected";
      }
      copy.textContent = said;
      setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    });
  }
})();
