"use strict";
// Tables sort on a click or a key (first use: ascending, then descending, then as they were); long ones can be filtered.
// Without this script the page reads the same, in its first order.
(() => {
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const value = (cell) => {
    const text = cell.textContent.trim().replace(/[,%>\s]/g, "").replace("−", "-").replace("∞", "Infinity");
    return text === "" ? NaN : Number(text); // "–" is NaN too: no number, and so last in either order
  };
  const marks = { none: "↕", ascending: "↑", descending: "↓" };

  document.querySelectorAll("table.sortable").forEach((table) => {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const all = [...body.rows], rows = all.filter((row) => !row.hasAttribute("data-gap"));
    if (rows.length < 2) return;

    const order = (column, direction) => {
      if (direction === "none") return all;
      const turn = direction === "ascending" ? 1 : -1;
      const words = heads[column].classList.contains("text");
      const keyed = rows.map((row) => [row, words ? row.cells[column].textContent.trim() : value(row.cells[column])]);
      const last = ([, key]) => (words ? key === "" || key === "–" : Number.isNaN(key));
      const compare = words ? ([, a], [, b]) => turn * collator.compare(a, b)
        : ([, a], [, b]) => (a < b ? -turn : a > b ? turn : 0); // not a - b: ∞ - ∞ is no number
      const known = keyed.filter((row) => !last(row)).sort(compare); // stable: ties stay as they were
      return [...known, ...keyed.filter(last)].map(([row]) => row).concat(all.filter((row) => !rows.includes(row)));
    };

    heads.forEach((head, column) => {
      const button = document.createElement("button"), mark = document.createElement("span");
      button.type = "button";
      button.append(...head.childNodes);
      if (!button.textContent.trim()) button.setAttribute("aria-label", "name");
      mark.setAttribute("aria-hidden", "true");
      mark.className = "mark";
      mark.textContent = marks.none;
      button.append(mark);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
        heads.forEach((other) => {
          other.setAttribute("aria-sort", other === head ? next : "none");
          other.querySelector(".mark").textContent = marks[other === head ? next : "none"];
        });
        body.append(...order(column, next));
      });
    });

    if (!table.hasAttribute("data-filter")) return;
    const bar = document.createElement("p"), label = document.createElement("label");
    const input = document.createElement("input"), count = document.createElement("output");
    bar.className = "filter";
    input.type = "search";
    input.placeholder = table.dataset.filter;
    input.setAttribute("aria-label", table.dataset.filter);
    label.append(input);
    bar.append(label, count);
    table.parentElement.before(bar);
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLocaleLowerCase();
      let shown = 0;
      all.forEach((row) => {
        const cells = [...row.cells].filter((_, i) => heads[i].classList.contains("text"));
        row.hidden = wanted !== "" && !cells.some((cell) => cell.textContent.toLocaleLowerCase().includes(wanted));
        if (!row.hidden && rows.includes(row)) shown += 1;
      });
      count.textContent = wanted === "" ? "" : `${shown} of ${rows.length}`;
    });
  });
})();
