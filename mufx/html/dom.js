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
const scrolled = (label, child) => make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: label }, child);

// One stop for the tab key among many elements; arrows move it.
const rove = (elements, current) => {
  for (const element of elements) element.tabIndex = element === current ? 0 : -1;
};
let counted = 0;
const fresh = (stem) => `${stem}-${(counted += 1)}`;
