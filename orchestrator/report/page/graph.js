// The graph on a canvas: only what is in view is drawn, so that large graphs stay fluid.
const NODE = { width: 216, height: 40, gapX: 44, gapY: 26 };
const view = { x: 0, y: 0, scale: 1 };
const canvas = byId("canvas");
const context = canvas.getContext("2d");
let colors = {};
let waiting = false;

const layout = () => data.layouts[state.method];

function place(id) {
  const [layer, column] = layout().places[id];
  return { x: column * (NODE.width + NODE.gapX), y: layer * (NODE.height + NODE.gapY) };
}

function readColors() {
  const style = getComputedStyle(document.documentElement);
  const names = ["--page", "--panel", "--text", "--quiet", "--edge", "--node", "--accent", "--mark",
    "--b0", "--b1", "--b2", "--b3", "--kernels"];
  colors = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(name).trim()]));
}

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = colors["--page"];
  context.fillRect(0, 0, width, height);
  context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
  const window_ = { left: -view.x / view.scale, top: -view.y / view.scale,
    right: (width - view.x) / view.scale, bottom: (height - view.y) / view.scale };
  drawEdges(window_);
  drawNodes(window_);
}

// Every edge is computed once, not in every frame: its path, the box around it, whether it crosses
// from one segment to another.
const geometries = new Map();
function geometry() {
  if (!geometries.has(state.method)) geometries.set(state.method, makeGeometry());
  return geometries.get(state.method);
}

function makeGeometry() {
  const all = current(), { places } = layout(), rightmost = rangeMaximum(rightEdges());
  const edges = [];
  for (const edge of method().edges) {
    if (!all.atoms.has(edge.producer)) continue;
    const from = place(edge.producer);
    const start = { x: from.x + NODE.width / 2, y: from.y + NODE.height };
    for (const consumer of edge.consumers) {
      const to = place(consumer);
      const end = { x: to.x + NODE.width / 2, y: to.y };
      const path = new Path2D();
      const aside = trace(path, start, end, places[edge.producer][0], places[consumer][0], rightmost);
      const crosses = all.atoms.get(edge.producer).segment !== all.atoms.get(consumer).segment;
      edges.push({ path, crosses, producer: edge.producer, consumer,
        left: Math.min(start.x, end.x), right: Math.max(start.x, end.x, aside),
        top: Math.min(start.y, end.y), bottom: Math.max(start.y, end.y) });
    }
  }
  return { edges };
}

// The maximum over any range of a list in two look-ups (a sparse table).
function rangeMaximum(values) {
  const levels = [values];
  for (let width = 1; 2 * width <= values.length; width *= 2) {
    const below = levels.at(-1);
    levels.push(below.slice(0, below.length - width).map((value, i) => Math.max(value, below[i + width])));
  }
  return (from, to) => {
    if (to <= from) return -Infinity;
    const level = 31 - Math.clz32(to - from);
    return Math.max(levels[level][from], levels[level][to - 2 ** level]);
  };
}

// Below this scale a node is a few pixels; and a dash of a line costs as much as a line, so lines
// over many layers, as residuals may be, have none.
const DETAIL = 0.2, DASHED = 4 * (NODE.height + NODE.gapY);

function drawEdges(area) {
  const { edges } = geometry();
  const detailed = view.scale > DETAIL;
  const shown = edges.filter((edge) => edge.top <= area.bottom && edge.bottom >= area.top
    && edge.left <= area.right && edge.right >= area.left);
  for (const crosses of [false, true]) {
    context.strokeStyle = colors[crosses ? "--text" : "--edge"];
    context.lineWidth = (crosses ? 2 : 1.2) / Math.max(view.scale, 0.5);
    for (const edge of shown) {
      if (edge.crosses !== crosses) continue;
      context.setLineDash(crosses && detailed && edge.bottom - edge.top < DASHED ? [6, 4] : []);
      context.stroke(edge.path);
    }
  }
  context.setLineDash([]);
  context.strokeStyle = colors["--accent"];
  for (const edge of shown) {
    if (edge.producer === state.atom || edge.consumer === state.atom) context.stroke(edge.path);
  }
}

// By layer, where its rightmost node ends.
function rightEdges() {
  const edges = new Array(layout().layers).fill(-Infinity);
  for (const [layer, column] of Object.values(layout().places)) {
    edges[layer] = Math.max(edges[layer], column * (NODE.width + NODE.gapX) + NODE.width);
  }
  return edges;
}

// Between layers that are neighbours an edge goes straight down; a longer one would run behind the
// nodes between, so it goes around them on the right. Returns how far to the right.
function trace(path, start, end, above, below, rightmost) {
  if (below - above > 1) {
    const side = NODE.width / 2;
    const right = Math.max(start.x + side, end.x + side, rightmost(above + 1, below));
    const aside = right + Math.min(14 + 4 * (below - above), 40);
    const from = { x: start.x + side, y: start.y - NODE.height / 2 };
    const to = { x: end.x + side, y: end.y + NODE.height / 2 };
    path.moveTo(from.x, from.y);
    path.bezierCurveTo(aside, from.y, aside, from.y, aside, Math.min(from.y + 30, to.y));
    path.lineTo(aside, Math.max(to.y - 30, from.y + 30));
    path.bezierCurveTo(aside, to.y, aside, to.y, to.x, to.y);
    return aside;
  }
  const bend = Math.max(14, (end.y - start.y) / 2);
  path.moveTo(start.x, start.y);
  path.bezierCurveTo(start.x, start.y + bend, end.x, end.y - bend, end.x, end.y);
  return -Infinity;
}

function drawNodes(area) {
  const legible = view.scale > 0.35;
  context.textBaseline = "middle";
  for (const atom of method().atoms) {
    const { x, y } = place(atom.id);
    if (x > area.right || y > area.bottom || x + NODE.width < area.left
      || y + NODE.height < area.top) continue;
    const color = colors[colorVariable(atom.backend)];
    context.globalAlpha = isNarrowed() && !visible(atom) ? 0.2 : 1;
    context.fillStyle = legible ? colors["--node"] : color;
    context.strokeStyle = color;
    context.lineWidth = 1.5;
    context.beginPath();
    context.roundRect(x, y, NODE.width, NODE.height, 6);
    context.fill();
    context.stroke();
    if (legible) drawLabel(atom, x, y, color);
    if (atom.id === state.atom) {
      context.strokeStyle = colors["--accent"];
      context.lineWidth = 3 / Math.min(1, view.scale);
      context.beginPath();
      context.roundRect(x - 3, y - 3, NODE.width + 6, NODE.height + 6, 8);
      context.stroke();
    }
  }
  context.globalAlpha = 1;
}

function drawLabel(atom, x, y, color) {
  context.fillStyle = color;
  context.beginPath();
  context.roundRect(x, y, 7, NODE.height, [6, 0, 0, 6]);
  context.fill();
  const time = atom.measured_ns ?? atom.predicted_ns;
  context.fillStyle = colors["--text"];
  context.font = "600 12px system-ui, 'DejaVu Sans', sans-serif";
  context.fillText(fitted(opsOf(atom), NODE.width - 20), x + 13, y + 13);
  context.fillStyle = colors["--quiet"];
  context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  const right = time === null ? "" : timeText(time);
  const taken = right ? context.measureText(right).width + 8 : 0;
  context.fillText(fitted(atom.module || atom.output, NODE.width - 20 - taken), x + 13, y + 28);
  if (right) context.fillText(right, x + NODE.width - taken, y + 28);
}

const fittedTexts = new Map();
function fitted(text, width) {
  const key = `${context.font}|${Math.round(width)}|${text}`;
  if (!fittedTexts.has(key)) {
    let cut = text;
    while (cut.length > 3 && context.measureText(cut + "…").width > width) cut = cut.slice(0, -1);
    fittedTexts.set(key, context.measureText(text).width <= width ? text : cut + "…");
  }
  return fittedTexts.get(key);
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const scale = Math.min(3, Math.max(0.01, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  redraw();
}

function graphSize() {
  return { width: layout().columns * (NODE.width + NODE.gapX) - NODE.gapX,
    height: layout().layers * (NODE.height + NODE.gapY) - NODE.gapY };
}

const PADDING = 48;

function fit() {
  const size = graphSize();
  const room = { width: canvas.clientWidth - 32, height: canvas.clientHeight - 2 * PADDING };
  view.scale = Math.min(1.5, Math.max(0.01, Math.min(room.width / size.width, room.height / size.height)));
  view.x = (canvas.clientWidth - size.width * view.scale) / 2;
  view.y = (canvas.clientHeight - size.height * view.scale) / 2;
  redraw();
}

// The start of the graph, as large as its width allows, and legible.
function showStart() {
  const size = graphSize();
  view.scale = Math.min(1, Math.max(0.75, (canvas.clientWidth - 32) / size.width));
  const { x } = method().atoms.length ? place(method().atoms[0].id) : { x: 0 };
  const fits = size.width * view.scale <= canvas.clientWidth;
  view.x = fits ? (canvas.clientWidth - size.width * view.scale) / 2
    : canvas.clientWidth / 2 - (x + NODE.width / 2) * view.scale;
  view.y = PADDING;
  redraw();
}

function centerOn(id) {
  const { x, y } = place(id);
  if (view.scale < 0.5) view.scale = 0.8;
  view.x = canvas.clientWidth / 2 - (x + NODE.width / 2) * view.scale;
  view.y = canvas.clientHeight / 3 - (y + NODE.height / 2) * view.scale;
  redraw();
}

function atomAt(clientX, clientY) {
  const box = canvas.getBoundingClientRect();
  const x = (clientX - box.left - view.x) / view.scale, y = (clientY - box.top - view.y) / view.scale;
  const hit = method().atoms.find((atom) => {
    const at = place(atom.id);
    return x >= at.x && x <= at.x + NODE.width && y >= at.y && y <= at.y + NODE.height;
  });
  return hit ? hit.id : null;
}

function listenToPointer() {
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, y: event.clientY, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    if (!drag.moved && Math.hypot(dx, dy) < 4) return;
    view.x += dx;
    view.y += dy;
    drag = { x: event.clientX, y: event.clientY, moved: true };
    redraw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) select(atomAt(event.clientX, event.clientY), false);
    drag = null;
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
}

function step(offset) {
  const atoms = method().atoms.filter(visible);
  if (!atoms.length) return;
  const at = atoms.findIndex((atom) => atom.id === state.atom);
  const next = at < 0 ? 0 : Math.min(atoms.length - 1, Math.max(0, at + offset));
  select(atoms[next].id);
}

function stepInLayer(offset) {
  const places = layout().places;
  if (state.atom === null) { step(0); return; }
  const row = method().atoms.filter((atom) => places[atom.id][0] === places[state.atom][0])
    .sort((a, b) => places[a.id][1] - places[b.id][1]);
  const next = row[row.findIndex((atom) => atom.id === state.atom) + offset];
  if (next) select(next.id);
}

function listenToKeys() {
  const actions = { ArrowDown: () => step(1), ArrowUp: () => step(-1),
    ArrowRight: () => stepInLayer(1), ArrowLeft: () => stepInLayer(-1),
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: fit,
    Escape: () => select(null), Home: () => step(-1e9), End: () => step(1e9) };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  });
}

function startGraph() {
  readColors();
  listenToPointer();
  listenToKeys();
  byId("zoom-in").addEventListener("click", () => zoom(1.25));
  byId("zoom-out").addEventListener("click", () => zoom(0.8));
  byId("zoom-fit").addEventListener("click", fit);
  new ResizeObserver(redraw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColors(); redraw(); });
  onChange(() => {
    if (state.center) centerOn(state.atom);
    state.center = false;
    redraw();
  });
}
