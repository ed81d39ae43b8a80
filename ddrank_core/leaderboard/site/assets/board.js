"use strict";

// -- ranking ------------------------------------------------------------------------------------

const LIVE = 60; // rows of a table whose stability follows each step of a slider

function rescore(board, changed) {
  for (const by of changed) {
    for (const line of board.lines) line[by] = score(line.row.own, by);
    board.scales[by] = scaleOf(board.lines.map((line) => line[by]));
  }
}

function rerank(board) {
  board.shown = board.lines.filter((line) => line.shown);
  for (const line of board.shown) line.place = null;
  const samples = board.shown.filter((line) => line[state.by].values).map((line) => {
    const { values, mean } = line[state.by];
    const { seeds, seedKey } = line.row.own;
    return { line, values, mean, seeds, seedKey, id: line.id };
  });
  board.ranked = Scores.rank(samples).map(({ sample, ...found }) => Object.assign(sample.line, found));
}

// Bring a table up to date, all of it or what is in the window.
function refresh(board, how = arrange) {
  const { stale } = board;
  if (!stale.size && !(board.partly && how === arrange)) return;
  rescore(board, stale);
  if (stale.has(state.by)) rerank(board);
  stale.clear();
  how(board);
  // Of a long table it takes as long as the step itself.
  if (how === arrange || board.ranked.length <= LIVE) Stability.show(board);
  else board.partly = true;
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
    if (!isIntersecting) continue;
    refresh(board);
    Stability.show(board);
  }
}, { rootMargin: "200px" });

// The address names the view, so that a link can lead to it.
function viewOfAddress() {
  const wanted = location.hash.slice(1);
  if (![...byId("view").options].some(({ value }) => value === wanted) || wanted === byId("view").value) return;
  byId("view").value = wanted;
  fillBoards();
  say();
  byId("status").scrollIntoView();
}

function fillBoards() {
  boards = boardsOf(byId("view").value || "methods");
  boards.forEach(build);
  byId("boards").replaceChildren(...boards.map(({ section }) => section));
  inView.disconnect();
  for (const { section } of boards) inView.observe(section);
  filter();
}

function filter() {
  const wanted = Object.entries(FILTERS).filter(([name]) => byId(name).value !== "");
  for (const board of boards) {
    for (const line of board.lines) line.shown = wanted.every(([name, of]) => of(line.row) === byId(name).value);
    const count = board.lines.filter(({ shown }) => shown).length;
    board.section.hidden = count === 0;
    if (board.section.hidden) continue;
    board.count.textContent = `${count} ${count === 1 ? "row" : "rows"}`;
    // A table that was hidden has not followed the sliders.
    rescore(board, ["lrs", "ars"]);
    board.stale.clear();
    rerank(board);
    arrange(board);
    Stability.show(board);
  }
  refreshChart();
}

const visible = () => boards.filter(({ section }) => !section.hidden);

// -- events -------------------------------------------------------------------------------------

function say() {
  const count = visible().reduce((sum, board) => sum + board.shown.length, 0);
  const weight = state.by === "lrs" ? `w = ${state.w.toFixed(2)}` : `g = ${state.g.toFixed(2)}`;
  const sorted = COLUMNS.find(({ key }) => key === state.sort).title;
  const tables = visible().length === 1 ? "1 table" : `${visible().length} tables`;
  byId("status").textContent = `${count} of ${rows.length} rows in ${tables}, ranked by ${state.by.toUpperCase()} at ${weight}, sorted by ${sorted === "Rank" ? "rank" : sorted}.`;
}

// A screen reader hears where the slider came to rest, not each step; the chart follows then too.
let resting = 0;
function sayAtRest() {
  clearTimeout(resting);
  resting = setTimeout(() => {
    const start = performance.now();
    visible().forEach((board) => refresh(board));
    say();
    refreshChart();
    performance.measure("rest", { start });
  }, 250);
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
    if (board.near) refresh(board, arrangeInWindow);
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
  visible().forEach((board) => refresh(board));
  visible().forEach(arrange);
  say();
}

function rankBy(by) {
  visible().forEach((board) => refresh(board));
  state.by = by;
  document.body.dataset.by = by;
  for (const board of visible()) {
    rerank(board);
    arrange(board);
    Stability.show(board);
  }
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
  else if (target.id === "view") {
    history.replaceState(null, "", `#${target.value}`);
    fillBoards();
    say();
  }
  else { filter(); say(); }
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
document.addEventListener("themechange", refreshChart);
addEventListener("hashchange", viewOfAddress);

fillFilters();
document.body.dataset.by = state.by;
fillBoards();
say();
viewOfAddress();
performance.mark("ready");
