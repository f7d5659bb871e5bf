// -- the axes of a plot: from values to pixels, and where the ticks stand
const scaled = ({ log, low, high }, from, to) => {
  const warp = log ? Math.log : (value) => value;
  const [a, b] = [warp(low), warp(high)];
  const step = b > a ? (to - from) / (b - a) : 0;
  return (value) => (step ? from + (warp(value) - a) * step : (from + to) / 2);
};

const ticksOf = (scale) => {
  if (scale.ticks.length) return scale.ticks;
  const values = scale.log ? logTicks(scale.low, scale.high) : linearTicks(scale.low, scale.high);
  return values.map((value) => [value, number(value)]);
};

const logTicks = (low, high) => {
  const decades = Math.log10(high / low), found = [];
  const within = decades > 2.5 ? [1] : decades > 1 ? [1, 3] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    found.push(...within.map((each) => each * 10 ** power));
  }
  const inside = found.filter((value) => value >= low && value <= high);
  const every = Math.ceil(inside.length / 7);
  return inside.length > 1 ? inside.filter((_, i) => i % every === 0) : [low, high];
};

const linearTicks = (low, high) => {
  const rough = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * unit).find((each) => each >= rough) ?? unit;
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) found.push(i * step);
  return found;
};

// A group has a shape and a dash beside its colour.
const SHAPES = [
  (x, y) => `M${x - 3},${y}a3,3 0 1,0 6,0a3,3 0 1,0 -6,0`,
  (x, y) => `M${x - 3},${y - 3}h6v6h-6z`,
  (x, y) => `M${x},${y - 4}l3.8,6.6h-7.6z`,
  (x, y) => `M${x},${y - 4}l4,4l-4,4l-4,-4z`,
  (x, y) => `M${x},${y + 4}l3.8,-6.6h-7.6z`,
];
const STAR = (x, y) => {
  const corner = (i) => [x + (i % 2 ? 3.4 : 8) * Math.sin((i * Math.PI) / 5), y - (i % 2 ? 3.4 : 8) * Math.cos((i * Math.PI) / 5)];
  return `M${[...Array(10).keys()].map((i) => corner(i).map((v) => v.toFixed(1)).join(",")).join("L")}z`;
};
const CROSS = (x, y) => `M${x - 4},${y - 4}l8,8m0,-8l-8,8`;
const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "4 4"];
