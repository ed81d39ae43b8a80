"use strict";

// -- ranking ------------------------------------------------------------------------------------

const FIRST = 25; // rows of a table that are drawn until its button asks for all

function rerank(board, changed) {
  for (const by of changed) {
    for (const line of board.lines) line[by] = score(line.row.own, by);
    board.scales[by] = scaleOf(board.lines.map((line) => line[by]));
  }
  board.shown = board.lines.filter((line) => line.shown);
  for (const line of board.shown) line.place = null;
  const samples = board.shown.filter((line) => line[state.by].values).map((line) => {
    const { values, mean } = line[state.by];
    const { seeds, seedKey } = line.row.own;
    return { line, values, mean, seeds, seedKey, id: line.id };
  });
  for (const { sample, ...found } of Scores.rank(samples)) Object.assign(sample.line, found);
  arrange(board);
}

// One scale for a table's scores, which holds all their intervals; positions are per cent of the cell.
function scaleOf(scores) {
  const defined = scores.filter(({ mean }) => mean !== null);
  const low = Math.max(0, Math.min(...defined.map(({ mean, half }) => mean - (half ?? 0))));
  const high = Math.min(1, Math.max(...defined.map(({ mean, half }) => mean + (half ?? 0))));
  return (value) => `${fixed(4 + (92 * (Math.min(high, Math.max(low, value)) - low)) / (high - low || 1), 2)}%`;
}

function showRank({ cells, place, rank, tied, lowest, highest }) {
  if (place === null) return cells.rank.replaceChildren("–");
  if (lowest === highest) return cells.rank.replaceChildren(`${rank}`);
  const words = el("span", { class: "unseen" }, tied ? " tied; between " : " between ");
  cells.rank.replaceChildren(`${rank}`, el("small", { title: "95 % rank interval" }, words, `${lowest}–${highest}`));
}

function showScore(line, by, at) {
  const { mean, half } = line[by];
  const { range, mean: dot, svg } = line.plots[by];
  if (mean === null) return line.cells[by].replaceChildren("–");
  range.setAttribute("x1", at(mean - (half ?? 0)));
  range.setAttribute("x2", at(mean + (half ?? 0)));
  dot.setAttribute("cx", at(mean));
  line.cells[by].replaceChildren(...numbers(mean, half, 3, 1), svg);
}

function inOrder(board) {
  const { value } = COLUMNS.find(({ key }) => key === state.sort);
  const direction = state.descending ? -1 : 1;
  const keyed = board.shown.map((line) => [value(line), line]);
  // What has no value comes last, whichever the direction.
  keyed.sort(([a, one], [b, other]) => (a === null) - (b === null)
    || (a < b ? -direction : a > b ? direction : (one.place ?? Infinity) - (other.place ?? Infinity) || 0));
  return keyed.map(([, line]) => line);
}

function arrange(board) {
  const ordered = inOrder(board);
  const drawn = board.all ? ordered : ordered.slice(0, FIRST);
  for (const line of drawn) {
    if (!line.element) make(line);
    showRank(line);
    for (const by of ["lrs", "ars"]) showScore(line, by, board.scales[by]);
    if (line.open) fillDetail(line);
  }
  showTies(ordered, drawn);
  reorder(board.body, drawn.flatMap((line) => (line.open ? [line.element, line.detail] : [line.element])));
  board.more.textContent = `Show all ${ordered.length} rows`;
  board.more.hidden = drawn.length === ordered.length;
  for (const { key } of COLUMNS) {
    const sorted = key === state.sort ? (state.descending ? "descending" : "ascending") : "none";
    board.head[key].setAttribute("aria-sort", sorted);
  }
}

function showTies(ordered, drawn) {
  const together = (one, other) => state.sort === "rank" && one && other && one.place && other.place && one.rank === other.rank;
  drawn.forEach((line, i) => {
    const [before, after] = [together(ordered[i - 1], line), together(line, ordered[i + 1])];
    line.element.dataset.tie = before ? (after ? "middle" : "last") : after ? "first" : "none";
  });
}

// Bring a table's rows into order and move only those that are out of it: a moved row is laid out anew.
function reorder(body, wanted) {
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  const keep = new Set(wanted);
  for (const element of [...body.children]) if (!keep.has(element)) element.remove();
  let there = body.firstElementChild;
  for (const element of wanted) {
    if (element === there) there = there.nextElementSibling;
    else body.insertBefore(element, there);
  }
  if (focused && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

// -- filters ------------------------------------------------------------------------------------

const FILTERS = {
  dataset: (row) => row.dataset,
  ipc: (row) => String(row.ipc),
  labels: (row) => row.labels,
  track: (row) => row.track,
  student: (row) => row.student,
};
let boards = [];

function options(select, choices, all) {
  select.replaceChildren(...(all ? [new Option(all, "")] : []), ...choices.map(([value, words]) => new Option(words, value)));
}

function fillFilters() {
  for (const [name, of] of Object.entries(FILTERS)) {
    const found = [...new Set(rows.map(of))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    options(byId(name), found.map((value) => [value, name === "track" ? TRACKS[value] ?? value : value]), "all");
  }
  const views = Object.keys(VIEWS).filter((view) => boardsOf(view).length);
  options(byId("view"), views.map((view) => [view, VIEWS[view]]));
  byId("view").parentElement.hidden = views.length < 2;
  options(byId("sort"), COLUMNS.map(({ key, title, unit }) => [key, unit ? `${title}, ${unit}` : title]));
  byId("track").value = rows.some(({ track }) => track === "own") ? "own" : "";
  for (const select of document.querySelectorAll("#controls select")) {
    for (const option of select.options) option.defaultSelected = option.selected;
  }
}

const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const board = boards.find(({ section }) => section === target);
    if (!board) continue;
    board.near = isIntersecting;
    if (isIntersecting) refresh(board);
  }
}, { rootMargin: "200px" });

function fillBoards() {
  boards = boardsOf(byId("view").value || "methods");
  boards.forEach(build);
  byId("boards").replaceChildren(...boards.map(({ section }) => section));
  inView.disconnect();
  for (const { section } of boards) inView.observe(section);
  filter(["lrs", "ars"]);
}

function filter(changed = []) {
  const wanted = Object.entries(FILTERS).filter(([name]) => byId(name).value !== "");
  for (const board of boards) {
    for (const line of board.lines) line.shown = wanted.every(([name, of]) => of(line.row) === byId(name).value);
    const count = board.lines.filter(({ shown }) => shown).length;
    board.section.hidden = count === 0;
    board.count.textContent = `${count} ${count === 1 ? "row" : "rows"}`;
    rerank(board, changed);
  }
  refreshChart();
}

const visible = () => boards.filter(({ section }) => !section.hidden);

// -- events -------------------------------------------------------------------------------------

function say() {
  const count = visible().reduce((sum, board) => sum + board.shown.length, 0);
  const weight = state.by === "lrs" ? `w = ${state.w.toFixed(2)}` : `g = ${state.g.toFixed(2)}`;
  const sorted = COLUMNS.find(({ key }) => key === state.sort).title;
  byId("status").textContent = `${count} of ${rows.length} rows in ${visible().length} tables, ranked by ${state.by.toUpperCase()} at ${weight}, sorted by ${sorted.toLowerCase() === "rank" ? "rank" : sorted}.`;
}

function refresh(board) {
  if (board.stale.size) rerank(board, board.stale);
  board.stale.clear();
}

// A screen reader hears where the slider came to rest, not each step; the chart follows then too.
let resting = 0;
function sayAtRest() {
  clearTimeout(resting);
  resting = setTimeout(() => { visible().forEach(refresh); say(); refreshChart(); }, 250);
}

const moved = new Set();
function slide(name, by) {
  state[name] = Number(byId(name).value);
  byId(`${name}-value`).textContent = state[name].toFixed(2);
  if (!moved.size) requestAnimationFrame(applySlide);
  moved.add(by);
}

function applySlide() {
  const start = performance.now();
  // The tables in view follow the slider; those far from it when it rests, hidden ones when they are shown.
  for (const board of visible()) {
    for (const by of moved) board.stale.add(by);
    if (board.near) refresh(board);
  }
  moved.clear();
  performance.measure("re-rank", { start });
  sayAtRest();
}

function sortBy(key) {
  const more = Boolean(COLUMNS.find((column) => column.key === key).more);
  state.descending = state.sort === key ? !state.descending : more;
  state.sort = key;
  byId("sort").value = key;
  visible().forEach(refresh);
  visible().forEach(arrange);
  say();
}

function rankBy(by) {
  visible().forEach(refresh);
  state.by = by;
  document.body.dataset.by = by;
  visible().forEach((board) => rerank(board, []));
  refreshChart();
  say();
}

// Scores of different tables cannot be compared: the chart is that of the first one.
function refreshChart() {
  const [first] = visible();
  byId("chart-title").textContent = first ? `${state.by.toUpperCase()} against size: ${heading(first)[0]}, ${TRACKS[first.of.track] ?? ""}` : "";
  SizeChart.show(first?.shown ?? [], state.by, byId("chart"));
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("controls").addEventListener("input", ({ target }) => {
  if (target.id === "w") slide("w", "lrs");
  else if (target.id === "g") slide("g", "ars");
  else if (target.name === "score") rankBy(target.value);
  else if (target.id === "sort") { state.sort = ""; sortBy(target.value); }
  else if (target.id === "view") { fillBoards(); say(); }
  else { filter(["lrs", "ars"]); say(); }
});
byId("controls").addEventListener("reset", () => setTimeout(() => {
  Object.assign(state, { by: "lrs", w: 0.5, g: 0.5, sort: "rank", descending: false });
  for (const name of ["w", "g"]) byId(`${name}-value`).textContent = "0.50";
  document.body.dataset.by = "lrs";
  fillBoards();
  say();
}));
byId("boards").addEventListener("click", ({ target }) => {
  const key = target.closest("[data-sort]")?.dataset.sort;
  if (key) sortBy(key);
});
addEventListener("resize", () => {
  for (const board of boards) for (const line of board.lines) if (line.open && line.element.isConnected) span(line);
});
document.addEventListener("themechange", refreshChart);

fillFilters();
document.body.dataset.by = state.by;
fillBoards();
say();
performance.mark("ready");
