"use strict";
(() => {
  // Paper has no folds.
  const folds = [...document.querySelectorAll("details")];
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = folds.filter((fold) => !fold.open);
    closed.forEach((fold) => { fold.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((fold) => { fold.open = false; }));

  const table = document.getElementById("records");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];
  const texts = new Map(rows.map((row) => [row, [...row.cells].map((cell) => cell.textContent)]));

  // What was not measured comes last, whichever way.
  const number = (text) => {
    const value = parseFloat(text);
    return Number.isNaN(value) ? null : value;
  };
  const order = (column, isNumber, sign) => (a, b) => {
    const [x, y] = [texts.get(a)[column], texts.get(b)[column]];
    if (!isNumber) return sign * (x < y ? -1 : x > y ? 1 : 0);
    const [m, n] = [number(x), number(y)];
    if (m === null || n === null) return (m === null) - (n === null);
    return sign * (m - n);
  };
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = NEXT[heading.getAttribute("aria-sort")];
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const isNumber = heading.classList.contains("number");
      const sorted = next === "none" ? rows : [...rows].sort(order(column, isNumber, sign));
      body.append(...sorted);
    });
  });

  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  const choices = [];
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter((word) => word);
    let count = 0;
    for (const row of rows) {
      const cells = texts.get(row);
      const text = cells.join(" ").toLowerCase();
      const matches = words.every((word) => text.includes(word))
        && choices.every(([column, select]) => !select.value || cells[column] === select.value);
      row.hidden = !matches;
      count += matches;
    }
    shown.textContent = `${count} of ${rows.length} records`;
  };
  const place = document.getElementById("choices");
  headings.forEach((heading, column) => {
    if (!heading.hasAttribute("data-choice")) return;
    const values = [...new Set(rows.map((row) => texts.get(row)[column]))];
    if (values.length < 2) return;
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.append(new Option("any", ""), ...values.map((value) => new Option(value, value)));
    label.append(heading.textContent, select);
    place.append(label);
    choices.push([column, select]);
    select.addEventListener("change", filter);
  });
  search.addEventListener("input", filter);
  const form = document.getElementById("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("show-all").addEventListener("click", () => {
    form.reset();
    filter();
  });
  filter();
  form.hidden = false;
})();
