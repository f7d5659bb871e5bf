// Text is only ever set as text: a name can hold anything.
const make = (tag, props = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};
const drawn = (tag, props = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const number = (value, digits = 6) => String(Number(value.toPrecision(digits)));

// A dotted name as parts, between which a line may end.
const dotted = (name) => name.split(/(?<=[.:])/).flatMap((part) => [part, make("wbr")]);

// A part that scrolls by itself; a shadow at a side says that there is more.
const scrolled = (label, child) => {
  const view = make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: label }, child);
  const frame = make("div", { className: "frame" }, view);
  const shade = () => {
    frame.classList.toggle("before", view.scrollLeft > 1);
    frame.classList.toggle("after", view.scrollLeft + view.clientWidth < view.scrollWidth - 1);
  };
  view.addEventListener("scroll", shade);
  const watch = new ResizeObserver(shade);
  for (const each of [view, child]) watch.observe(each);
  return frame;
};

// One stop for the tab key among many elements; arrows move it.
const rove = (elements, current) => {
  for (const element of elements) element.tabIndex = element === current ? 0 : -1;
};
let counted = 0;
const fresh = (stem) => `${stem}-${(counted += 1)}`;
