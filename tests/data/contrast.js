// The contrast of every text that can be seen, as WCAG 2 defines it, by where it is.
() => {
  const channels = (color) => {
    const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const light = (rgb) => {
    const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    if (element instanceof SVGElement) {
      const rect = element.parentElement.querySelector(":scope > rect");
      if (rect) return channels(getComputedStyle(rect).fill).rgb;
    }
    for (let at = element; at; at = at.parentElement) {
      const found = channels(getComputedStyle(at).backgroundColor);
      if (found.a === 1) return found.rgb;
      if (found.a > 0) throw new Error(`half transparent: ${at.outerHTML.slice(0, 80)}`);
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = {};
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const color = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(channels(color).rgb), light(ground(element))].sort((x, y) => y - x);
    const said = walker.currentNode.data.trim().slice(0, 20);
    const where = `${element.tagName} ${element.getAttribute("class")}: ${said}`;
    found[where] = (a + 0.05) / (b + 0.05);
  }
  return found;
}
