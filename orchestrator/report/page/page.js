// The panels, and everything put together.
const timed = () => method().segments.some((segment) => segment.measured_ns !== null)
  ? "measured_ns" : "predicted_ns";

function fillSummary() {
  const each = method(), plan = each.plan;
  const counts = new Map();
  for (const segment of each.segments) {
    const entry = counts.get(segment.backend) ?? { nodes: 0, calls: 0, delegate: segment.is_delegate };
    entry.nodes += segment.nodes.length;
    entry.calls += 1;
    counts.set(segment.backend, entry);
  }
  const total = each.segments.reduce((sum, segment) => sum + segment.nodes.length, 0);
  const parts = [element("p", {}, `${total} nodes: `, ...[...counts].flatMap(([backend, entry], index) => [
    index ? ", " : "", backendLabel(backend),
    ` ${entry.nodes}${entry.delegate ? ` in ${entry.calls} ${entry.calls === 1 ? "call" : "calls"}` : ""}`])) ];
  if (plan && plan.predicted_ns !== null) parts.unshift(element("p", { class: "big" },
    timeText(plan.measured_ns ?? plan.predicted_ns)), element("p", { class: "quiet" }, certainty(plan)));
  if (typeof plan?.private_bytes === "number") parts.push(element("p", { class: "quiet" },
    `${plan.private_bytes ? bytesText(plan.private_bytes) : "0 B"} of delegates' own memory, beside the file`));
  for (const [op, kernel] of Object.entries(each.missing_kernels)) {
    parts.push(element("p", { class: "loss" },
      `Missing: ${op} needs the kernel ${kernel}, which the ExecuTorch runtime at hand lacks.`));
  }
  for (const note of plan?.notes ?? []) parts.push(element("p", { class: "quiet" }, note));
  if (plan?.alternatives.length) parts.push(alternatives(plan, each));
  byId("summary").replaceChildren(element("h2", {}, `Method ${each.name}`), ...parts);
}

function certainty(plan) {
  const texts = [`predicted ${timeText(plan.predicted_ns)}`
    + (plan.spread_ns ? ` ± ${timeText(plan.spread_ns)}` : "")];
  if (plan.measured_ns !== null) texts.push(`measured ${timeText(plan.measured_ns)}`, method().profile);
  if (plan.gap !== null) {
    texts.push(plan.gap < 5e-5 ? `${plan.solver}: no plan costs less by these prices`
      : `${plan.solver}: at most ${(100 * plan.gap).toFixed(1)} % above the best`);
  } else texts.push(plan.solver);
  return texts.join(", ");
}

function nameOf(plan) {
  const remedy = plan.remedy ? ` (${plan.remedy})` : "";
  return plan.problem ? `${plan.name}: ${plan.problem}${remedy}` : plan.name;
}

function alternatives(plan, each) {
  const chosen = { name: "chosen", partitions: each.segments.filter((s) => s.is_delegate).length,
    predicted_ns: plan.predicted_ns, measured_ns: plan.measured_ns, problem: "" };
  const rows = [chosen, ...plan.alternatives];
  const against = (field) => (row) => row === chosen || row[field] === null || !plan[field] ? null
    : (100 * (row[field] - plan[field])) / plan[field];
  const signed = (value) => value === null ? "" : value > 200 ? `${(1 + value / 100).toPrecision(3)} x`
    : `${value >= 0 ? "+" : ""}${value.toFixed(1)} %`;
  const measured = rows.some((row) => row.measured_ns !== null);
  const table = element("table", { id: "alternatives" });
  makeTable(table, [
    { title: "Plan", value: (row) => row.name, cell: (row) => nameOf(row) },
    { title: "Calls", value: (row) => row.partitions, number: true },
    { title: "Predicted", value: (row) => row.predicted_ns, cell: (row) => timeText(row.predicted_ns), number: true },
    { title: "Against chosen", value: against("predicted_ns"), cell: (row) => signed(against("predicted_ns")(row)), number: true },
    { title: "Measured", value: (row) => row.measured_ns, cell: (row) => timeText(row.measured_ns), number: true, hidden: !measured },
    { title: "Against", value: against("measured_ns"), cell: (row) => signed(against("measured_ns")(row)), number: true, hidden: !measured },
  ])(rows);
  return table;
}

function fillTimeline() {
  const { segments } = method();
  const lanes = [["measured", "measured_ns"], ["predicted", "predicted_ns"]]
    .filter(([, field]) => segments.some((segment) => segment[field]));
  if (!lanes.length) lanes.push(["nodes", null]);
  byId("timeline").replaceChildren(...lanes.map(([name, field]) => {
    const size = (segment) => field ? segment[field] ?? 0 : segment.nodes.length;
    const total = segments.reduce((sum, segment) => sum + size(segment), 0);
    const bars = segments.map((segment, index) => {
      const text = field ? timeText(segment[field]) : `${segment.nodes.length} nodes`;
      const label = `Segment ${index}, ${segment.backend}: ${text}, ${percentText(size(segment), total)}`;
      return element("button", { type: "button", title: label, "aria-label": label, "data-segment": index,
        "aria-pressed": "false", style: `flex:${Math.max(size(segment), total / 500)} 0 0;background:${colorOf(segment.backend)}`,
        onclick: () => pickSegment(index) }, size(segment) > total / 12 ? `${index}: ${text}` : "");
    });
    return element("div", { class: "lane" }, element("span", { class: "quiet" }, name),
      element("div", { class: "bars" }, ...bars));
  }));
}

function pickSegment(index) {
  state.segment = state.segment === index ? null : index;
  const first = method().atoms.find((atom) => atom.segment === state.segment);
  applyFilters();
  if (first) centerOn(first.id);
}

// Neighbours in one module share its path: "blocks.0.attention.{query, key}".
function modulesText(modules) {
  const groups = [];
  for (const name of modules.map((each) => ({ "": "the whole model", ".": "top level" })[each] ?? each)) {
    const at = name.lastIndexOf(".");
    const [parent, last] = at < 0 ? ["", name] : [name.slice(0, at + 1), name.slice(at + 1)];
    if (parent && groups.at(-1)?.parent === parent) groups.at(-1).last.push(last);
    else groups.push({ parent, last: [last] });
  }
  const names = groups.map(({ parent, last }) => parent
    + (last.length === 1 ? last[0] : `{${shortList(last)}}`));
  return shortList(names);
}

const shortList = (names) => names.length > 4
  ? `${names.slice(0, 2).join(", ")} … ${names.at(-1)} (${names.length})` : names.join(", ");

let setOps = () => {};

function fillTables() {
  const { segments, atoms } = method();
  const total = segments.reduce((sum, segment) => sum + (segment[timed()] ?? 0), 0);
  const has = (field) => segments.some((segment) => segment[field] !== null);
  makeTable(byId("segments"), [
    { title: "#", value: (row) => segments.indexOf(row), number: true },
    { title: "Runs on", value: (row) => row.backend, cell: (row) => backendLabel(row.backend) },
    { title: "Modules", value: (row) => row.modules.join(" "), cell: (row) => breakable(modulesText(row.modules)) },
    { title: "Nodes", value: (row) => row.nodes.length, number: true },
    { title: "Predicted", value: (row) => row.predicted_ns, cell: (row) => timeText(row.predicted_ns), number: true, hidden: !has("predicted_ns") },
    { title: "Measured", value: (row) => row.measured_ns, cell: (row) => timeText(row.measured_ns), number: true, hidden: !has("measured_ns") },
    { title: "Share", value: (row) => row[timed()], cell: (row) => percentText(row[timed()], total), number: true, hidden: !total },
    { title: "Boundary", value: (row) => row.boundary_ns, cell: (row) => timeText(row.boundary_ns), number: true, hidden: !has("boundary_ns") },
    { title: "In", value: (row) => bytesIn(row.inputs), cell: (row) => bytesText(bytesIn(row.inputs)), number: true },
    { title: "Out", value: (row) => bytesIn(row.outputs), cell: (row) => bytesText(bytesIn(row.outputs)), number: true },
    { title: "Conversions", value: (row) => row.conversions.length, number: true },
    { title: "Weights", value: (row) => row.weight_bytes, cell: (row) => bytesText(row.weight_bytes), number: true },
    { title: "Quantized layers", value: schemesText, hidden: !segments.some(schemesText) },
  ], { sort: 0, id: (row) => segments.indexOf(row), pick: (row) => pickSegment(segments.indexOf(row)) })(segments);
  const order = new Map(atoms.map((atom, index) => [atom.id, index]));
  const price = (backend) => ({ title: `on ${backend}`, number: true,
    hidden: !atoms.some((atom) => atom.costs_ns[backend] != null),
    value: (row) => row.costs_ns[backend] ?? null, cell: (row) => timeText(row.costs_ns[backend]) });
  setOps = makeTable(byId("ops"), [
    { title: "#", value: (row) => order.get(row.id), cell: (row) => String(order.get(row.id)), number: true },
    { title: "Op", value: opsOf },
    { title: "Module", value: (row) => row.module },
    { title: "Runs on", value: (row) => row.backend, cell: (row) => backendLabel(row.backend) },
    { title: "Segment", value: (row) => row.segment, number: true },
    { title: "Predicted", value: (row) => row.predicted_ns, cell: (row) => timeText(row.predicted_ns), number: true, hidden: !has("predicted_ns") },
    { title: "Measured", value: (row) => row.measured_ns, cell: (row) => timeText(row.measured_ns), number: true, hidden: !atoms.some((atom) => atom.measured_ns !== null) },
    ...[...report.backends, "portable"].map(price),
    { title: "Source", value: (row) => row.source },
    { title: "Result", value: (row) => row.output },
  ], { sort: 0, id: (row) => row.id, pick: (row) => select(row.id), filled: (body) => mark(body, state.atom) });
  makeTable(byId("rejections"), [
    { title: "Nodes", value: (row) => row.nodes.length, number: true },
    { title: "Backend", value: (row) => row.backend, cell: (row) => backendLabel(row.backend) },
    { title: "Op", value: (row) => row.op, cell: (row) => breakable(row.op) },
    { title: "Reason", value: (row) => row.reason, cell: (row) => breakable(row.reason.replace(row.op, "it")) },
    { title: "What it would take", value: (row) => row.remedy },
  ], { sort: 0, descending: true, id: (row) => row.nodes[0], pick: (row) => pickNode(row.nodes[0]) })(rejectionGroups());
}

// "4 of int8 weights", or "" for a segment of floats.
const schemesText = (segment) =>
  Object.entries(segment.schemes ?? {}).map(([scheme, count]) => `${count} of ${scheme}`).join("; ");
const bytesIn = (tensors) => tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);

function rejectionGroups() {
  const groups = new Map();
  for (const rejection of method().rejections) {
    const key = [rejection.backend, rejection.op, rejection.reason].join("\n");
    if (!groups.has(key)) groups.set(key, { ...rejection, nodes: [] });
    groups.get(key).nodes.push(rejection.node);
  }
  return [...groups.values()];
}

function pickNode(node) {
  const atom = method().atoms.find((each) => each.nodes.includes(node));
  if (atom) select(atom.id);
}

function gainCertainty(item) {
  const text = item.assumed ? " (supposed price)" : item.tie ? " (within the spread of the costs)" : "";
  return text && element("span", { class: "quiet" }, text);
}

function fillAdvice() {
  const advice = method().plan?.advice ?? [];
  byId("advice-section").hidden = !advice.length;
  byId("rejections-section").hidden = !method().rejections.length;
  byId("advice").replaceChildren(...advice.map((item) => {
    const change = element("span", { class: `number ${item.gain_ns > 0 ? "gain" : "loss"}` }, timeText(-item.gain_ns, true));
    const text = element("span", {}, item.text, gainCertainty(item),
      item.remedy ? element("div", { class: "remedy" }, `→ ${item.remedy}`) : "");
    return element("div", { class: "advice-row" }, change, text);
  }));
}

function fillFilters() {
  const present = [...new Set(method().segments.map((segment) => segment.backend))];
  const boxes = present.map((backend) => element("label", {}, element("input", { type: "checkbox", value: backend,
    onchange: (event) => {
      state.backends[event.target.checked ? "add" : "delete"](backend);
      applyFilters();
    } }), " ", backendLabel(backend)));
  const clear = element("button", { type: "button", id: "clear", hidden: true, onclick: clearFilters }, "Show all");
  byId("filters").replaceChildren(element("span", { class: "quiet" }, "Only"), ...boxes, clear);
  byId("legend").replaceChildren(...present.map((backend) => backendLabel(backend)));
}

function clearFilters() {
  Object.assign(state, { segment: null, query: "" });
  state.backends.clear();
  byId("search").value = "";
  fillFilters();
  applyFilters();
}

function applyFilters() {
  const shown = method().atoms.filter(visible);
  state.matches = state.query ? shown.map((atom) => atom.id) : [];
  setOps(shown);
  const all = method().atoms.length;
  byId("ops-count").textContent = shown.length === all ? `${all}` : `${shown.length} of ${all}`
    + (state.segment === null ? "" : `, segment ${state.segment}`);
  byId("found").textContent = state.query ? `${state.matches.length} found` : "";
  byId("clear").hidden = !isNarrowed();
  for (const bar of document.querySelectorAll(".bars button")) {
    bar.setAttribute("aria-pressed", String(Number(bar.dataset.segment) === state.segment));
  }
  changed();
}

function fillDetail() {
  const box = byId("detail");
  const atom = state.atom === null ? null : current().atoms.get(state.atom);
  box.hidden = !atom;
  if (!atom) return;
  const sizes = (edges) => edges.map((edge) => `${edge.tensor} (${bytesText(edge.bytes)})`).join(", ");
  const rows = [["runs on", element("span", {}, backendLabel(atom.backend), ` in segment ${atom.segment}`)],
    ["nodes", atom.nodes.join(", ")], ["module", atom.module], ["source", atom.source], ["result", atom.output],
    ["predicted", atom.predicted_ns === null ? "" : timeText(atom.predicted_ns)],
    ["measured", atom.measured_ns === null ? "" : timeText(atom.measured_ns)],
    ["could cost", Object.entries(atom.costs_ns).filter(([, ns]) => ns !== null)
      .map(([backend, ns]) => `${timeText(ns)} on ${backend}`).join(", ")],
    ["takes", sizes(current().inputs.get(atom.id))], ["gives", sizes(current().outputs.get(atom.id))]];
  for (const node of atom.nodes) {
    for (const rejection of current().rejections.get(node) ?? []) {
      rows.push([`not ${rejection.backend}`, rejection.reason + (rejection.remedy ? ` → ${rejection.remedy}` : "")]);
    }
  }
  const close = element("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => select(null) }, "×");
  box.replaceChildren(close, element("h3", {}, opsOf(atom)), element("dl", {},
    ...rows.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])));
}

function listenToSearch() {
  const input = byId("search");
  let at = -1;
  input.addEventListener("input", () => {
    state.query = input.value.trim().toLowerCase();
    at = -1;
    applyFilters();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && state.matches.length) {
      const count = state.matches.length;
      at = (at + (event.shiftKey ? count - 1 + (at < 0) : 1)) % count;
      byId("found").textContent = `${at + 1} of ${count}`;
      select(state.matches[at]);
      byId("found").textContent = `${at + 1} of ${count}`;
    } else if (event.key === "Escape") clearFilters();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
    event.preventDefault();
    input.focus();
  });
}

function listenToHeader() {
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.theme = dark ? "light" : "dark";
    readColors();
    redraw();
  });
  byId("help").addEventListener("click", (event) => {
    const keys = byId("keys");
    keys.hidden = !keys.hidden;
    event.currentTarget.setAttribute("aria-expanded", String(!keys.hidden));
  });
  const choice = byId("method");
  choice.replaceChildren(...report.methods.map((each, index) => element("option", { value: index }, each.name)));
  choice.hidden = report.methods.length < 2;
  choice.addEventListener("change", () => showMethod(Number(choice.value)));
}

function showMethod(index) {
  Object.assign(state, { method: index, atom: null });
  fillSummary();
  fillTimeline();
  fillTables();
  fillAdvice();
  clearFilters();
  showStart();
}

byId("title").textContent = data.title || "Orchestrator report";
byId("versions").textContent = [report.target,
  ...Object.entries(report.versions).map(([name, version]) => `${name} ${version}`)].filter(Boolean).join(" · ");
listenToHeader();
listenToSearch();
startGraph();
onChange(fillDetail);
onChange(() => mark(byId("ops").tBodies[0], state.atom, { scroll: true }));
onChange(() => mark(byId("segments").tBodies[0], state.segment ?? "none"));
if (report.methods.length) showMethod(0);
document.documentElement.dataset.ready = "true";
