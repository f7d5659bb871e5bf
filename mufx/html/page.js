// -- the page: its theme, its head, and the sections that the document has
const page = JSON.parse(document.getElementById("data").textContent);
const views = { table: tableView, tree: treeView, entry: entryView, panels: panelsView, code: codeView, words: wordsView };
const by = (id) => document.getElementById(id);

by("summary").textContent = page.summary;
if (page.verdict) {
  by("verdict").hidden = false;
  by("verdict").className = page.good ? "good" : "bad";
  by("verdict").textContent = `${page.good ? "✓" : "✗"} ${page.verdict}`;
}

const themes = ["system", "light", "dark"];
by("theme").addEventListener("click", (event) => {
  const now = document.documentElement.dataset.theme ?? "system";
  const next = themes[(themes.indexOf(now) + 1) % 3];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  event.target.textContent = `Theme: ${next}`;
});

const folded = (block, parts) => {
  if (!block.folded) return parts;
  return [make("details", {}, make("summary", {}, block.title), ...parts)];
};

for (const { id, title, blocks } of page.sections) {
  document.querySelector("nav").append(make("a", { href: `#${id}` }, title), " ");
  const section = make("section", { id, tabIndex: -1 }, make("h2", { id: `${id}-title` }, title));
  section.setAttribute("aria-labelledby", `${id}-title`);
  by("main").append(section);
  for (const block of blocks) section.append(...folded(block, views[block.kind](block)));
}
for (const changed of document.querySelectorAll(".graph .new, .graph .old")) {
  const view = changed.closest(".scroll"), box = changed.getBoundingClientRect(), frame = view.getBoundingClientRect();
  view.scrollLeft = box.left + box.width / 2 - frame.left - frame.width / 2;
}
