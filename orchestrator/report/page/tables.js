// Tables that sort by their column heads.

// Rows are made so many per frame: a thousand at once would hold up the page.
const ROWS_PER_FRAME = 100;

// columns: {title, value(row) to sort by, cell(row) text or element, number, hidden}
function makeTable(table, columns, options = {}) {
  const shown = columns.filter((column) => !column.hidden);
  const sort = { column: options.sort ?? null, descending: options.descending ?? false };
  const body = element("tbody");
  const heads = shown.map((column, index) => {
    const button = element("button", { type: "button", onclick: () => sortBy(index) }, column.title);
    return element("th", { scope: "col", class: column.number ? "number" : null }, button);
  });
  let rows = [], fills = 0;

  function sortBy(index) {
    const again = sort.column === index;
    sort.descending = again ? !sort.descending : Boolean(shown[index].number);
    sort.column = index;
    fill();
  }

  function ordered() {
    if (sort.column === null) return rows;
    const { value } = shown[sort.column];
    const sign = sort.descending ? -1 : 1;
    return [...rows].sort((a, b) => {
      const left = value(a), right = value(b);
      if (left === null || right === null) return (left === null) - (right === null); // "-" last
      return sign * (typeof left === "number" ? left - right : String(left).localeCompare(right));
    });
  }

  function fill() {
    heads.forEach((head, index) => {
      const direction = sort.descending ? "descending" : "ascending";
      head.setAttribute("aria-sort", index === sort.column ? direction : "none");
    });
    const waiting = ordered();
    const turn = ++fills;
    body.replaceChildren();
    function more() {
      if (turn !== fills) return; // filled anew meanwhile
      body.append(...waiting.splice(0, ROWS_PER_FRAME).map(makeRow));
      options.filled?.(body);
      if (waiting.length) requestAnimationFrame(more);
    }
    more();
  }

  function makeRow(row) {
    const cells = shown.map((column) => element("td",
      { class: column.number ? "number" : "text" }, (column.cell ?? column.value)(row) ?? "-"));
    if (!options.pick) return element("tr", {}, ...cells);
    const pick = () => options.pick(row);
    const keys = (event) => {
      const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
      if (event.key === "Enter" || event.key === " ") pick();
      else if (step) event.currentTarget[step]?.focus();
      else return;
      event.preventDefault();
    };
    return element("tr", { tabindex: 0, "data-id": options.id(row), onclick: pick, onkeydown: keys },
      ...cells);
  }

  table.replaceChildren(element("thead", {}, element("tr", {}, ...heads)), body);
  return (next) => { rows = next; fill(); };
}

function mark(body, id, { scroll = false } = {}) {
  for (const row of body.rows) {
    const chosen = row.dataset.id === String(id);
    if ((row.getAttribute("aria-selected") === "true") === chosen) continue;
    row.setAttribute("aria-selected", chosen);
    if (chosen && scroll) scrollInside(row);
  }
}

// Scrolls the table's own box only: the page must not jump while one steps through the graph.
function scrollInside(row) {
  const box = row.closest(".scroll");
  const top = row.offsetTop - box.querySelector("thead").offsetHeight;
  if (top < box.scrollTop || row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight) {
    box.scrollTop = top - box.clientHeight / 3;
  }
}
