// Data, numbers as text, elements, and what is selected. Text reaches the page as text nodes only.
const data = JSON.parse(document.getElementById("data").textContent);
const report = data.report;

const state = { method: 0, atom: null, segment: null, query: "", backends: new Set(), matches: [] };
const listeners = [];
const onChange = (listener) => listeners.push(listener);
const changed = () => listeners.forEach((listener) => listener());

const method = () => report.methods[state.method];
const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, value === true ? "" : value);
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function timeText(ns, signed = false) {
  if (ns === null || ns === undefined) return "-";
  const size = Math.abs(ns);
  const sign = ns < 0 ? "-" : signed ? "+" : "";
  for (const [unit, scale] of [["ns", 1], ["us", 1e3], ["ms", 1e6], ["s", 1e9]]) {
    if (size < 999.5 * scale || unit === "s") {
      const value = size / scale;
      return `${sign}${unit === "ns" ? Math.round(value) : trimmed(value)} ${unit}`;
    }
  }
  return "";
}

function trimmed(value) {
  return value.toPrecision(3).includes("e") ? String(Math.round(value)) : value.toPrecision(3);
}

function bytesText(count) {
  if (!count) return "-";
  for (const [unit, scale] of [["B", 1], ["kB", 1e3], ["MB", 1e6], ["GB", 1e9]]) {
    if (count < 999.5 * scale || unit === "GB") return `${Number((count / scale).toPrecision(3))} ${unit}`;
  }
  return "";
}

function percentText(part, total) {
  return part === null || !total ? "-" : `${((100 * part) / total).toFixed(1)} %`;
}

// Text whose lines break between words; in one that is too long, after a dot or an underscore.
const breakable = (text) => element("span", {},
  ...text.split(" ").flatMap((word) => [element("span", { class: "word" },
    ...word.split(/(?<=[._])/).flatMap((part) => [part, element("wbr")])), " "]));

const shortOp = (op) => op.replace(/^(aten\.|dim_order_ops\._)/, "").replace(/\.(default|Tensor)$/, "");
const opsOf = (atom) => atom.ops.map(shortOp).join(" + ");

function colorVariable(backend) {
  const index = report.backends.indexOf(backend);
  return index < 0 ? "--kernels" : `--b${index % 4}`;
}
const colorOf = (backend) => `var(${colorVariable(backend)})`;

function backendLabel(backend) {
  const swatch = element("i", { class: "swatch", style: `background:${colorOf(backend)}` });
  return element("span", { class: "backend" }, swatch, backend);
}

// Derived once per method: atoms by id, neighbours, rejections by node, text to search in.
const derived = report.methods.map((each) => {
  const atoms = new Map(each.atoms.map((atom) => [atom.id, atom]));
  const inputs = new Map(each.atoms.map((atom) => [atom.id, []]));
  const outputs = new Map(each.atoms.map((atom) => [atom.id, []]));
  for (const edge of each.edges) {
    if (outputs.has(edge.producer)) outputs.get(edge.producer).push(edge);
    for (const consumer of edge.consumers) inputs.get(consumer)?.push(edge);
  }
  const rejections = new Map();
  for (const rejection of each.rejections) {
    if (!rejections.has(rejection.node)) rejections.set(rejection.node, []);
    rejections.get(rejection.node).push(rejection);
  }
  const texts = new Map(each.atoms.map((atom) => [atom.id,
    [atom.id, ...atom.nodes, ...atom.ops, atom.module, atom.source, atom.output, atom.backend]
      .join("\n").toLowerCase()]));
  return { atoms, inputs, outputs, rejections, texts };
});
const current = () => derived[state.method];

function visible(atom) {
  return (state.segment === null || atom.segment === state.segment)
    && (!state.backends.size || state.backends.has(atom.backend))
    && (!state.query || current().texts.get(atom.id).includes(state.query));
}
const isNarrowed = () => state.segment !== null || state.backends.size > 0 || state.query !== "";

function select(atom, center = true) {
  state.atom = atom;
  state.center = center && atom !== null;
  changed();
}
