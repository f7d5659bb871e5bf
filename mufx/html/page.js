"use strict";
(() => {
  const { manifest, train, source } = JSON.parse(document.getElementById("data").textContent);
  const by = (id) => document.getElementById(id);
  // Text is only ever set as text: a name can hold anything.
  const make = (tag, text, props = {}) => Object.assign(document.createElement(tag), { textContent: text ?? "" }, props);
  const number = (value) => String(Number(value.toPrecision(6)));
  const knobs = (values) => Object.entries(values).map(([k, v]) => `${k}=${typeof v === "string" ? v : JSON.stringify(v)}`).join(", ");

  by("summary").textContent = `${knobs(manifest.base)} → ${knobs(manifest.target)} · ${manifest.optimizer} · ${manifest.form} · mufx ${manifest.mufx_version}`;

  // -- theme
  const themes = ["system", "light", "dark"];
  by("theme").addEventListener("click", (event) => {
    const now = document.documentElement.dataset.theme ?? "system";
    const next = themes[(themes.indexOf(now) + 1) % 3];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    event.target.textContent = `Theme: ${next}`;
  });

  // -- roles
  const columns = [
    ["Parameter", (p) => p.name], ["Role", (p) => p.role], ["Group", (p) => p.group],
    ["Shape", (p) => p.shape.reduce((a, b) => a * b, 1), (p) => p.shape.join(" × ") || "1"],
    ["Base shape", (p) => p.base_shape.reduce((a, b) => a * b, 1), (p) => p.base_shape.join(" × ") || "1"],
    ["Init ×", (p) => p.init_scale], ["Learning rate ×", (p) => p.lr_scale],
    ["Weight decay ×", (p) => p.weight_decay_scale], ["Eps ×", (p) => p.eps_scale], ["Multiplier", (p) => p.multiplier],
  ];
  const parameters = Object.entries(manifest.parameters).map(([name, p]) => ({ name, ...p }));
  const form = by("filters");
  let sorted = 0, direction = 1;

  const options = (field) => {
    const values = [...new Set(parameters.map((p) => p[field]))].sort();
    form[field].append(make("option", "all", { value: "" }), ...values.map((v) => make("option", v, { value: v })));
  };
  const shown = (p) => (!form.role.value || p.role === form.role.value) && (!form.group.value || p.group === form.group.value)
    && p.name.toLowerCase().includes(form.module.value.trim().toLowerCase());
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));

  const row = (p) => {
    const line = make("tr");
    line.title = p.because.join("\n");
    columns.forEach(([, key, text], i) => {
      const value = key(p);
      const cell = make(i ? "td" : "th", text ? text(p) : typeof value === "number" ? number(value) : value);
      if (!i) cell.scope = "row";
      if (i === 1) cell.className = p.role;
      if (typeof value === "number") cell.classList.add("number");
      line.append(cell);
    });
    return line;
  };
  const draw = () => {
    const rows = parameters.filter(shown).sort((a, b) => direction * compare(columns[sorted][1](a), columns[sorted][1](b)));
    by("table").tBodies[0].replaceChildren(...rows.map(row));
    by("count").textContent = `${rows.length} of ${parameters.length}`;
    [...by("table").tHead.rows[0].cells].forEach((cell, i) => {
      if (i === sorted) cell.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
  };
  columns.forEach(([title, key], i) => {
    const head = make("th", "", { scope: "col" });
    const button = make("button", title, { type: "button" });
    if (parameters.length && typeof key(parameters[0]) === "number") head.className = "number";
    button.addEventListener("click", () => { direction = sorted === i ? -direction : 1; sorted = i; draw(); });
    head.append(button);
    by("table").tHead.rows[0].append(head);
  });
  options("role");
  options("group");
  form.addEventListener("input", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  draw();

  // -- corrections, diagnostics, training
  const facts = (entries) => {
    const list = make("dl");
    for (const [term, text] of entries) if (text) list.append(make("dt", term), make("dd", text));
    return list;
  };
  const article = (title, entries, place) => {
    const made = make("article");
    made.append(make("h3", title), facts(entries));
    if (source[place]) made.append(make("pre", source[place].join("\n"), { tabIndex: 0 }));
    return made;
  };
  const fill = (id, articles, none) => by(id).append(...(articles.length ? articles : [make("p", none, { className: "quiet" })]));
  const same = new Map();
  for (const c of manifest.changes) {
    const key = JSON.stringify([c.file, c.line, c.before, c.after, c.because]);
    same.set(key, [...(same.get(key) ?? []), c]);
  }
  fill("corrections", [...same.values()].map((all) => {
    const [c] = all;
    const modules = [...new Set(all.map((x) => x.module))].join(", ");
    return article(`${c.file}:${c.line}`, [["before", c.before], ["after", c.after], ["because", c.because], ["in", modules]], `${c.file}:${c.line}`);
  }), "None: the forward pass is kept as it is.");
  fill("diagnostics", [...manifest.diagnostics, ...manifest.unabsorbed].map((d) => {
    const place = d.file === null ? "" : `${d.file}:${d.line}`;
    return article(`${d.severity} ${d.code} ${place}`, [["what", d.message], ["hint", d.hint], ["in", d.module]], place);
  }), "None.");
  if (train) by("train").append(make("pre", train, { tabIndex: 0 }));
  else by("train").append(make("p", "The model's own class is kept: train it with mufx.optim.", { className: "quiet" }));
})();
