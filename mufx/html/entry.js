// -- what is told: facts, lines of source, drawings
const entryView = (entry) => {
  const element = make("article", { className: entry.mark }, make("h3", {}, entry.title));
  const facts = make("dl");
  for (const [term, text] of entry.facts) facts.append(make("dt", {}, term), make("dd", {}, text));
  element.append(facts);
  if (entry.source.length) element.append(scrolled(`Source: ${entry.title}`, make("pre", {}, entry.source.join("\n"))));
  if (entry.drawings.length) element.append(make("div", { className: "pair" }, ...entry.drawings.map(drawing)));
  return [element];
};

const drawing = ({ title, svg, words }) => {
  const parsed = new DOMParser().parseFromString(svg, "image/svg+xml").documentElement;
  parsed.setAttribute("role", "img");
  parsed.style.maxWidth = `max(100%, ${0.85 * parsed.getAttribute("width")}px)`;
  parsed.setAttribute("aria-label", words);
  return make("figure", {}, make("figcaption", {}, title), scrolled(`Graph ${title}`, document.importNode(parsed, true)));
};

const codeView = (code) => [scrolled("Code", make("pre", {}, code.text))];

const wordsView = (words) => [make("p", { className: "quiet" }, words.text)];
