"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const state = { by: "lrs", w: 0.5, g: 0.5, sort: "rank", descending: false };
const TRACKS = { own: "own recipe", fixed: "fixed recipe" };
const LEVELS = { error: "refused", warning: "warning", info: "note" };

// -- small helpers: everything from a submission goes through textContent -----------------------

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Never -0.0, and a minus that is as wide as a plus.
function fixed(value, digits) {
  const shown = (Number(value.toFixed(digits)) || 0).toFixed(digits);
  return shown.replace("-", "−");
}
const percent = (value) => fixed(100 * value, 1);
const three = (value) => String(Number(value.toPrecision(3)));

function bytes(count) {
  for (const [unit, scale] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (count >= scale) return `${three(count / scale)} ${unit}`;
  }
  return `${count} B`;
}

// -- rows and their columns ---------------------------------------------------------------------

function measured(arms, seeds) {
  const parts = Scores.parts(arms);
  const found = { parts, seeds, seedKey: seeds.join(" ") };
  for (const name of ["hlr", "ior", "accuracy"]) found[name] = Scores.summary(parts[name], data.t975);
  return found;
}

// The arms of a control: the row's own where they are the same trials, less those that it lacks, which are null.
function armsOf(own, changed) {
  return Object.fromEntries(Object.entries({ ...own, ...changed }).filter(([, values]) => values));
}

function score(run, by) {
  const values = by === "lrs" ? Scores.lrs(run.parts, state.w) : Scores.ars(run.parts, state.g);
  return { values, ...Scores.summary(values, data.t975) };
}

const rows = data.rows.map((row) => {
  const size = row.bytes[0] + row.bytes[1] + row.bytes[2];
  const own = measured(row.arms, row.seeds);
  return {
    ...row,
    own,
    size,
    // The first that is listed. What is claimed is the method's own, not what a variant of it reaches.
    claim: row.variant ? null : row.claimed[0]?.[0] ?? null,
    perKb: own.accuracy.mean === null || !size ? null : (100 * own.accuracy.mean) / (size / 1000),
    controls: row.controls.map(([name, arms, seeds]) => [name, measured(armsOf(row.arms, arms), seeds)]),
  };
});

// A column: its title, unit, the value that it sorts by, and whether more is better.
const COLUMNS = [
  { key: "rank", title: "Rank", unit: "interval", value: (line) => line.place },
  { key: "method", title: "Method", value: (line) => line.name.toLowerCase() },
  { key: "lrs", title: "LRS", unit: "0 to 1", more: true, value: (line) => line.lrs.mean },
  { key: "ars", title: "ARS", unit: "0 to 1", more: true, value: (line) => line.ars.mean },
  { key: "hlr", title: "HLR", unit: "points", value: (line) => line.row.own.hlr.mean },
  { key: "ior", title: "IOR", unit: "points", more: true, value: (line) => line.row.own.ior.mean },
  { key: "measured", title: "Measured", unit: "% correct", more: true, value: (line) => line.row.own.accuracy.mean },
  { key: "claimed", title: "Claimed", unit: "% correct", more: true, value: (line) => line.row.claim },
  { key: "size", title: "Size", unit: "with labels", value: (line) => line.row.size },
  { key: "density", title: "Density", unit: "% per kB", more: true, value: (line) => line.row.perKb },
  { key: "cost", title: "Cost", unit: "GPU hours", value: (line) => line.row.cost?.[0] ?? null },
];

// -- boards: rows that can be compared ----------------------------------------------------------

function boardsOf(view) {
  const boards = new Map();
  for (const row of rows) {
    // Another student's rows stand among all of that student.
    const axis = row.variant?.[0] ?? "student";
    if (axis !== "student" && axis !== view) continue;
    if (view !== "methods" && row.variant && axis !== view) continue;
    const key = [row.dataset, row.ipc, row.track, row.student, row.protocol, view === "methods" ? "" : row.slug];
    const id = JSON.stringify(key);
    if (!boards.has(id)) boards.set(id, { of: row, view, rows: [] });
    boards.get(id).rows.push(row);
  }
  const found = [...boards.values()];
  return view === "methods" ? found : found.filter((board) => board.rows.some((row) => row.variant));
}

// What is ranked: methods, or one method's distilled set under each of its augmentations or label mappings.
const VIEWS = { methods: "Methods", augmentation: "Data augmentation", labels: "Label strategy" };
const VARIED = { methods: "Method", augmentation: "Augmentation", labels: "Labels" };

function heading(board) {
  const { dataset, ipc, track, student, protocol, method } = board.of;
  const first = board.view === "methods" ? dataset : `${method} on ${dataset}`;
  const images = `${ipc} ${ipc === 1 ? "image" : "images"} per class`;
  return [`${first}, ${images}`, [TRACKS[track] ?? track, student, protocol].join(" · ")];
}

function build(board) {
  const [title, about] = heading(board);
  board.head = {};
  board.count = el("span");
  const head = COLUMNS.map(({ key, title: words, unit }) => {
    const button = el("button", { type: "button", "data-sort": key }, key === "method" ? VARIED[board.view] : words);
    if (unit) button.append(el("small", {}, unit));
    board.head[key] = el("th", { scope: "col", role: "columnheader", class: key }, button);
    return board.head[key];
  });
  board.body = el("tbody", { role: "rowgroup" });
  board.scales = {};
  board.stale = new Set();
  board.more = el("button", { type: "button", class: "more" });
  board.more.addEventListener("click", () => {
    board.all = true;
    const next = board.body.rows.length;
    arrange(board);
    board.body.rows[next].querySelector("a").focus();
  });
  board.lines = board.rows.map((row) => lineOf(row, board));
  tellApart(board.lines);
  // The roles are told: rows are laid out as boxes of their own, so that a browser skips those out of sight.
  const table = el("table", { role: "table" },
    el("caption", { class: "unseen" }, `${title}, ${about}`),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...head)),
    board.body);
  board.stability = Stability.panel(board);
  board.section = el("section", { class: "board" },
    el("h2", {}, title, el("span", { class: "about" }, about), board.count), board.stability.details, table, board.more);
}

// A score's cell, made once; a slider changes its numbers and where its marks stand.
function interval(cell, { mean, half }) {
  if (mean === null) return cell.append("–");
  const [number, error, marks] = [new Text(), new Text(), el("span", { class: "interval" })];
  cell.append(number, ...(half === null ? [] : [" ", el("span", { class: "error" }, error)]), marks);
  return { number, error, marks: marks.style };
}

function numbers(mean, half, digits = 1, scale = 100) {
  if (mean === null) return ["–"];
  const shown = [fixed(scale * mean, digits)];
  if (half !== null) shown.push(" ", el("span", { class: "error" }, `± ${fixed(scale * half, digits)}`));
  return shown;
}

function lineOf(row, board) {
  const name = board.view === "methods" ? row.method : row.variant ? row.variant[1]
    : `as submitted: ${board.view === "labels" ? row.labels : row.augmentation}`;
  return { row, name, id: row.variant ? `${row.slug} ${row.variant.join(" ")}` : row.slug, open: false, place: null };
}

// A name that stands twice in a table is followed by the row's folder.
function tellApart(lines) {
  const counts = new Map();
  for (const { name } of lines) counts.set(name, (counts.get(name) ?? 0) + 1);
  for (const line of lines) {
    const place = [line.row.slug.split("/")[0], ...(line.row.variant?.slice(1) ?? [])];
    if (counts.get(line.name) > 1) line.name += ` (${place.join(", ")})`;
  }
}

// A line's row is made when it is first shown.
function make(line) {
  const { row, name } = line;
  const cells = {};
  for (const { key } of COLUMNS) cells[key] = el("td", { class: key, role: "cell" });
  cells.method = el("th", { class: "method", scope: "row", role: "rowheader" });
  line.toggle = el("button", { type: "button", class: "toggle", "aria-expanded": "false", "aria-label": `Details of ${name}` });
  line.toggle.addEventListener("click", () => toggle(line));
  cells.method.append(line.toggle, el("a", { href: row.page }, name), tags(row));
  cells.hlr.append(...numbers(row.own.hlr.mean, row.own.hlr.half));
  cells.ior.append(...numbers(row.own.ior.mean, row.own.ior.half));
  cells.measured.append(...numbers(row.own.accuracy.mean, row.own.accuracy.half));
  cells.claimed.append(row.claim === null ? "–" : percent(row.claim));
  cells.size.append(bytes(row.size));
  cells.density.append(row.perKb === null ? "–" : three(row.perKb));
  cells.cost.append(row.cost ? three(row.cost[0]) : "–");
  line.plots = { lrs: interval(cells.lrs, line.lrs), ars: interval(cells.ars, line.ars) };
  line.cells = cells;
  line.element = el("tr", { role: "row" }, ...COLUMNS.map(({ key }) => cells[key]));
}

function tags(row) {
  const made = el("span", { class: "tags" }, `${row.labels} labels`);
  for (const level of ["error", "warning", "info"]) {
    const count = row.findings.filter(([found]) => found === level).length;
    if (count) made.append(" ", el("span", { class: `badge ${level}` }, `${count} ${LEVELS[level]}${count > 1 && level !== "error" ? "s" : ""}`));
  }
  return made;
}
