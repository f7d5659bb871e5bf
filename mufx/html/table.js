// -- tables: sorted by a click on a head, filtered by a form, rows opened for what is behind them
const cellKey = (cell) => (Array.isArray(cell) ? cell[0] : cell);
const cellText = (cell) => (cell === null ? "" : Array.isArray(cell) ? cell[1] : typeof cell === "number" ? number(cell) : cell);
const compare = (a, b) => {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
};

const tableView = (table) => {
  const state = { sorted: 0, direction: 1, wanted: table.columns.map(() => "") };
  const element = make("table", { ariaLabel: table.title }, make("thead", {}, make("tr")), make("tbody"));
  const count = make("output", { ariaLive: "polite" });
  const heads = table.columns.map((column, i) => {
    const button = make("button", { type: "button" }, column.title.replace(" ×", "\u00a0×"));
    button.addEventListener("click", () => {
      state.direction = state.sorted === i ? -state.direction : 1;
      state.sorted = i;
      draw();
    });
    return make("th", { scope: "col", className: column.kind === "number" ? "number" : "" }, button);
  });
  element.tHead.rows[0].append(...heads);

  const matches = (row) => table.columns.every((column, i) => {
    const wanted = state.wanted[i], text = cellText(row.cells[i]);
    if (!wanted) return true;
    return column.filter === "choice" ? text === wanted : text.toLowerCase().includes(wanted.trim().toLowerCase());
  });
  const draw = () => {
    const { sorted, direction } = state;
    const shown = table.rows.filter(matches).sort((a, b) => direction * compare(cellKey(a.cells[sorted]), cellKey(b.cells[sorted])));
    element.tBodies[0].replaceChildren(...shown.map((row) => tableRow(table, row)));
    const first = element.querySelector("tbody button");
    if (first) first.tabIndex = 0;
    count.textContent = `${shown.length} of ${table.rows.length}`;
    heads.forEach((head, i) => {
      if (i === sorted) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };
  element.tBodies[0].addEventListener("keydown", moveAmongRows);
  const form = tableFilters(table, state, draw);
  form.append(count);
  draw();
  return form.elements.length > 1 ? [form, scrolled(table.title, element)] : [scrolled(table.title, element)];
};

const tableFilters = (table, state, draw) => {
  const form = make("form", { className: "filters", role: "search", ariaLabel: `Filter: ${table.title}` });
  table.columns.forEach((column, i) => {
    if (!column.filter) return;
    const name = column.title.toLowerCase();
    const field = column.filter === "choice" ? make("select", { name }) : make("input", { name, type: "search", autocomplete: "off" });
    if (column.filter === "choice") {
      const values = [...new Set(table.rows.map((row) => cellText(row.cells[i])))].sort();
      field.append(make("option", { value: "" }, "all"), ...values.map((value) => make("option", { value }, value)));
    }
    const label = make("label", {}, `${column.title} ${column.filter === "search" ? "contains " : ""}`, field);
    if (column.hints.length) {
      const list = make("datalist", { id: fresh("hints") }, ...column.hints.map((value) => make("option", { value })));
      field.setAttribute("list", list.id);
      label.append(list);
    }
    field.addEventListener("input", () => { state.wanted[i] = field.value; draw(); });
    form.append(label);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  return form;
};

const tableRow = (table, row) => {
  const line = make("tr");
  table.columns.forEach((column, i) => {
    const text = cellText(row.cells[i]);
    const cell = i ? make("td", { className: column.kind }) : make("th", { scope: "row", className: column.kind });
    if (column.kind === "mark") cell.append(make("span", { className: `mark ${text.replaceAll(" ", "-")}` }, text));
    else if (!i && row.detail.length) cell.append(detailButton(table, row, line, text));
    else cell.append(...(i ? [text] : dotted(text)));
    line.append(cell);
  });
  return line;
};

const detailButton = (table, row, line, text) => {
  const button = make("button", { type: "button", tabIndex: -1, ariaExpanded: "false" }, ...dotted(text));
  button.addEventListener("click", () => {
    const open = button.ariaExpanded === "true";
    button.ariaExpanded = String(!open);
    if (open) return line.nextElementSibling.remove();
    const list = make("ul", {}, ...row.detail.map((said) => make("li", {}, said)));
    line.after(make("tr", { className: "detail" }, make("td", { colSpan: table.columns.length }, list)));
  });
  return button;
};

const moveAmongRows = (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const buttons = [...event.currentTarget.querySelectorAll("th button")];
  const next = buttons[buttons.indexOf(event.target) + step];
  if (!step || !next || !buttons.includes(event.target)) return;
  event.preventDefault();
  rove(buttons, next);
  next.focus();
};
