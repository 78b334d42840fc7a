// The tests of a screen as a volcano and a table of the same rows: hover or focus a point for its numbers, search, sort,
// filter, select in either of them, save as CSV. Without this script the page shows the first rows and a still figure.
(() => {
  const store = document.getElementById("screen-data");
  if (!store) return;
  const { columns, label, values, listed, total, places, floor, file } = JSON.parse(store.textContent);
  const $ = (id) => document.getElementById(id), table = $("tests").querySelector("table"), body = table.tBodies[0];
  const PAGE = 50;
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const words = label.map((text) => text.toLocaleLowerCase());
  const chosen = new Set();
  let view = [], page = 0, active = -1, volcano, sorted = { column: -1, turn: 0 };

  // --- numbers as the rest of the page writes them -------------------------------------------------------------------
  const write = (v, digits) => {
    if (v === null) return "–";
    if (digits !== null) return v.toFixed(digits).replace(/^-(?=0(\.0*)?$)/, "");
    if (v === 0) return "0";
    const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(v))));
    if (decimals <= 7) return v.toFixed(decimals);
    return Number(v.toPrecision(3)).toExponential().replace(/e-(\d)$/, "e-0$1");
  };
  const cell = (i, k) => (k === 0 ? label[i] : write(values[columns[k].name][i], columns[k].places));
  const many = (n) => n.toLocaleString("en-US");

  // --- which rows ----------------------------------------------------------------------------------------------------
  const rate = () => Math.min(100, Math.max(0, Number($("fdr").value) || 0)) / 100;
  const isFound = (i) => values.qvalue[i] <= rate();
  const mode = () => document.querySelector('input[name="rows"]:checked').value;
  const compare = (k, turn) => {
    if (k === 0) return (a, b) => turn * collator.compare(label[a], label[b]);
    const of = values[columns[k].name];
    return (a, b) => (of[a] === null) - (of[b] === null) || turn * (of[a] - of[b]);
  };
  const update = () => {
    const wanted = $("search").value.trim().toLocaleLowerCase(), which = mode();
    const keeps = { all: () => true, found: isFound, chosen: (i) => chosen.has(i) }[which];
    view = [];
    const end = which === "chosen" ? label.length : listed;
    for (let i = 0; i < end; i += 1) if (keeps(i) && (wanted === "" || words[i].includes(wanted))) view.push(i);
    if (sorted.turn) view.sort(compare(sorted.column, sorted.turn));
    page = 0;
    render();
    volcano.draw();
  };

  // --- the table -----------------------------------------------------------------------------------------------------
  const heads = [...table.tHead.rows[0].cells], marks = { 0: "↕", 1: "↑", "-1": "↓" };
  const row = (i) => {
    const line = document.createElement("tr");
    line.dataset.i = i;
    columns.forEach((_, k) => {
      const td = line.insertCell();
      if (k) td.textContent = cell(i, k);
      else {
        const box = document.createElement("input"), name = document.createElement("label");
        box.type = "checkbox";
        box.checked = chosen.has(i);
        name.append(box, ` ${label[i]}`);
        td.append(name);
      }
      td.className = heads[k].className;
    });
    line.classList.toggle("chosen", chosen.has(i));
    line.classList.toggle("active", i === active);
    return line;
  };
  const render = () => {
    const pages = Math.max(1, Math.ceil(view.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const shown = view.slice(page * PAGE, (page + 1) * PAGE);
    body.replaceChildren(...shown.map(row));
    $("where").textContent = shown.length
      ? `${many(page * PAGE + 1)}–${many(page * PAGE + shown.length)} of ${many(view.length)}` : "no test matches";
    $("first").disabled = $("back").disabled = page === 0;
    $("next").disabled = $("last").disabled = page === pages - 1;
    $("save-shown").disabled = view.length === 0;
    $("save-shown").textContent = `Save these ${many(view.length)} as CSV`;
    $("save-chosen").disabled = $("clear").disabled = chosen.size === 0;
    $("save-chosen").textContent = `Save the selection (${many(chosen.size)})`;
    tell();
  };
  const tell = () => {
    let found = 0, wrong = 0;
    while (found < listed && isFound(found)) wrong += values.prob_null[found++]; // rows come by conviction
    const least = found === listed && listed < total ? "at least " : "";
    const expected = wrong < 0.001 ? "fewer than 0.001" : wrong < 0.05 ? wrong.toPrecision(1) : wrong < 100 ? wrong.toFixed(1) : many(Math.round(wrong));
    $("told").textContent = found === 0 ? "no discovery at this rate"
      : found === 1 ? `1 discovery, false with probability ${wrong.toPrecision(2)}`
      : `${least}${many(found)} discoveries, ${expected} of them expected to be false`;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button"), mark = document.createElement("span");
    button.type = "button";
    button.append(...head.childNodes, mark);
    mark.className = "mark";
    mark.setAttribute("aria-hidden", "true");
    head.append(button);
    button.addEventListener("click", () => {
      const turn = sorted.column === column ? { 0: 1, 1: -1, "-1": 0 }[sorted.turn] : 1;
      sorted = { column, turn };
      markHeads();
      update();
    });
  });
  const markHeads = () => heads.forEach((head, k) => {
    const turn = k === sorted.column ? sorted.turn : 0;
    head.setAttribute("aria-sort", { 0: "none", 1: "ascending", "-1": "descending" }[turn]);
    head.querySelector(".mark").textContent = marks[turn];
  });
  const mark = (i) => { // the row of the test that is pointed at
    active = i;
    body.querySelectorAll("tr").forEach((line) => line.classList.toggle("active", Number(line.dataset.i) === i));
  };
  const choose = (i) => {
    if (!chosen.delete(i)) chosen.add(i);
    if (mode() === "chosen") update();
    else {
      render();
      volcano.draw();
    }
  };
  const rowOf = (event) => {
    const line = event.target.closest("tr");
    return line ? Number(line.dataset.i) : -1;
  };
  body.addEventListener("change", (event) => {
    const i = rowOf(event);
    choose(i);
    body.querySelector(`tr[data-i="${i}"] input`)?.focus();
  });
  body.addEventListener("click", (event) => {
    if (!event.target.closest("label") && rowOf(event) >= 0) choose(rowOf(event));
  });
  body.addEventListener("mouseover", (event) => volcano.point(rowOf(event)));
  body.addEventListener("focusin", (event) => volcano.point(rowOf(event)));
  body.addEventListener("mouseleave", () => volcano.point(-1));

  const turnTo = (i) => { // the page of the table with this row
    const at = view.indexOf(i);
    if (at >= 0 && Math.floor(at / PAGE) !== page) {
      page = Math.floor(at / PAGE);
      render();
    }
    const line = body.querySelector(`tr[data-i="${i}"]`), box = table.parentElement;
    if (line) box.scrollTop += line.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 2;
  };
  const take = (i) => {
    if (i < 0) return;
    choose(i);
    turnTo(i);
    volcano.point(i);
  };
  // --- saving --------------------------------------------------------------------------------------------------------
  const quote = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const save = (rows, name) => {
    const lines = [columns.map((column) => quote(column.name)).join(",")];
    for (const i of rows) {
      lines.push([quote(label[i]), ...columns.slice(1).map(({ name: c }) => values[c][i] ?? "")].join(","));
    }
    const address = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };
  $("save-shown").addEventListener("click", () => save(view, `${file}.csv`));
  $("save-chosen").addEventListener("click", () => save([...chosen].sort((a, b) => a - b), `${file}-selection.csv`));
  $("clear").addEventListener("click", () => {
    chosen.clear();
    update();
  });

  const turn = (to) => () => {
    page = to();
    render();
    table.parentElement.scrollTop = 0;
  };
  $("first").addEventListener("click", turn(() => 0));
  $("back").addEventListener("click", turn(() => page - 1));
  $("next").addEventListener("click", turn(() => page + 1));
  $("last").addEventListener("click", turn(() => Infinity));
  $("search").addEventListener("input", update);
  $("fdr").addEventListener("input", update);
  document.querySelectorAll('input[name="rows"]').forEach((input) => input.addEventListener("change", update));
  document.querySelectorAll("[data-live]").forEach((part) => { part.hidden = part.dataset.live === "off"; });
  volcano = volcanoOf({ label, values, places, floor, write, chosen, shown: () => view, isFound, mark, take });
  markHeads();
  update();
})();
