// -- the module tree, as the ARIA practices describe one: arrows, Home, End, one stop for the tab key

const treeView = (tree) => {
  const root = make("ul", { role: "tree", ariaLabel: tree.title });
  root.append(...treeItems(tree, tree.branches, 1));
  root.firstElementChild.tabIndex = 0;
  root.addEventListener("click", (event) => {
    const item = event.target.closest("[role=treeitem]");
    if (!item) return;
    focusItem(root, item);
    if (item.ariaExpanded && event.target.closest(".line").parentElement === item) item.ariaExpanded = String(item.ariaExpanded !== "true");
  });
  root.addEventListener("keydown", (event) => moveInTree(root, event));
  return [...(tree.classes.length ? [legend(tree.classes)] : []), scrolled(tree.title, root)];
};

const legend = (classes) => make("dl", { className: "classes" }, ...classes.flatMap((each, i) => [
  make("dt", {}, classPart(each, i)),
  make("dd", {}, make("code", {}, each.name), ` × ${each.factor}`),
]));

// Layers are often alike: all but the first are closed.
const treeItems = (tree, branches, level) => {
  const seen = new Set();
  return branches.map((branch) => {
    const kind = JSON.stringify({ ...branch, name: "" }), item = treeItem(tree, branch, level);
    if (item.ariaExpanded && seen.has(kind)) item.ariaExpanded = "false";
    seen.add(kind);
    return item;
  });
};

const treeItem = (tree, branch, level) => {
  const line = make("span", { className: "line" }, make("code", {}, branch.name), " ");
  if (branch.about) line.append(make("span", { className: `mark ${branch.mark}` }, branch.about), " ");
  branch.axes.forEach((axis) => line.append(axisChip(tree, axis), " "));
  const item = make("li", { role: "treeitem", tabIndex: -1, ariaLevel: String(level), ariaLabel: line.textContent.trim() }, line);
  if (!branch.branches.length) return item;
  item.ariaExpanded = "true";
  item.append(make("ul", { role: "group" }, ...treeItems(tree, branch.branches, level + 1)));
  return item;
};

// A product of axes shows the class of each factor.
const axisChip = (tree, axis) => {
  if (!axis.grows) return make("span", { className: "axis fixed" }, `${axis.target} fixed`);
  const sizes = axis.base === axis.target ? `${axis.target} grows` : `${axis.base} → ${axis.target}`;
  const parts = axis.classes.flatMap((place, i) => [i ? "·" : "", classPart(tree.classes[place], place)]);
  return make("span", { className: "axis" }, ...parts, parts.length ? ` ${sizes}` : sizes);
};

const classPart = (each, place) => make("span", { className: `part class${place % 7}` }, each.letter);

const open = (root) => [...root.querySelectorAll("[role=treeitem]")].filter((item) => !item.parentElement.closest("[aria-expanded=false]"));

const focusItem = (root, item) => {
  rove(root.querySelectorAll("[role=treeitem]"), item);
  item.focus();
};

const moveInTree = (root, event) => {
  const item = event.target.closest("[role=treeitem]"), items = open(root), at = items.indexOf(item);
  const parent = item.parentElement.closest("[role=treeitem]");
  const turn = (state) => { item.ariaExpanded = state; };
  const actions = {
    ArrowDown: () => items[at + 1],
    ArrowUp: () => items[at - 1],
    Home: () => items[0],
    End: () => items.at(-1),
    ArrowRight: () => (item.ariaExpanded === "false" ? turn("true") : item.ariaExpanded && items[at + 1]),
    ArrowLeft: () => (item.ariaExpanded === "true" ? turn("false") : parent),
    Enter: () => item.ariaExpanded && turn(String(item.ariaExpanded !== "true")),
  };
  actions[" "] = actions.Enter;
  if (!actions[event.key]) return;
  event.preventDefault();
  const next = actions[event.key]();
  if (next instanceof Element) focusItem(root, next);
};
