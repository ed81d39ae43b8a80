"use strict";

// What opens below a row: the controls beside it, facts, and what its audit has found.

function toggle(line) {
  line.open = !line.open;
  line.toggle.setAttribute("aria-expanded", String(line.open));
  if (!line.open) return line.detail.remove();
  line.detail ??= el("tr", { class: "detail", role: "row" }, el("td", { role: "cell" }));
  fillDetail(line);
  line.element.after(line.detail);
}

function fillDetail(line) {
  const { row } = line;
  line.detail.firstChild.replaceChildren(
    el("div", { class: "panels" }, controlsPanel(line), factsPanel(line), findingsPanel(row)));
}

function controlsPanel({ row, name }) {
  const own = { ...score(row.own, state.by), ...row.own, label: name };
  const others = row.controls.map(([label, run]) => ({ ...run, ...score(run, state.by), label }));
  const defined = own.values ? others.filter(({ values }) => values) : [];
  const won = Scores.beats(own.values ? { ...own, seeds: row.seeds } : own, defined);
  const verdict = (other) => (!defined.includes(other) ? "–" : won[defined.indexOf(other)] ? "yes" : "not shown");
  const title = state.by.toUpperCase();
  const line = (run, said) => el("tr", {},
    el("th", { scope: "row" }, run.label),
    el("td", {}, ...numbers(run.accuracy.mean, run.accuracy.half)),
    el("td", {}, ...numbers(run.mean, run.half, 3, 1)),
    el("td", {}, said));
  if (!others.length) return el("div", {}, el("h3", {}, "Against the controls"), el("p", {}, "No control was measured."));
  return el("div", {}, el("table", { class: "against" },
    el("caption", {}, "Against the controls, under the same recipe"),
    el("thead", {}, el("tr", {}, ...["Images", "% correct", title, "Beaten"].map((words) => el("th", { scope: "col" }, words)))),
    el("tbody", {}, line(own, ""), ...others.map((other) => line(other, verdict(other))))));
}

// What a narrow window leaves out of the table.
function otherScores({ row, lrs, ars }) {
  const shown = [["LRS", lrs.mean, 3, 1], ["ARS", ars.mean, 3, 1], ["HLR", row.own.hlr.mean, 1, 100], ["IOR", row.own.ior.mean, 1, 100]];
  const words = shown.map(([name, mean, digits, scale]) => `${name} ${mean === null ? "–" : fixed(scale * mean, digits)}`);
  return [el("dt", { class: "narrow" }, "Scores"), el("dd", { class: "narrow" }, words.join(", "))];
}

// Where the same set is ranked under other augmentations or label mappings.
function rankedOn({ slug, variant }) {
  const axes = new Set(rows.filter((row) => row.slug === slug && row.variant).map((row) => row.variant[0]));
  const views = variant ? [] : Object.entries(VIEWS).filter(([view]) => axes.has(view));
  return views.map(([view, title]) => el("p", {}, el("a", { href: `#${view}` }, `Rank on ${title.toLowerCase()}`)));
}

function factsPanel(line) {
  const { row } = line;
  const [images, labels, teacher] = row.bytes;
  const facts = [
    ...row.claimed.map(([accuracy, source, student]) => ["Claimed", `${percent(accuracy)} % (${[source, student].filter(Boolean).join("; ")})`]),
    ["Images", bytes(images)],
    ["Labels", bytes(labels)],
    ["Teacher", `${teacher ? `${bytes(teacher)}` : "none to store"}${row.teacher ? ` (${row.teacher})` : ""}`],
    ["Cost", row.cost ? `${three(row.cost[0])} GPU hours on ${row.cost[1]}` : "not stated"],
    ["Saw", row.saw.join(", ") || "nothing"],
    ["Measured", `ddrank ${row.ddrank}, ${row.protocol}, ${row.device}`],
  ];
  return el("div", {}, el("h3", {}, "Facts"),
    el("dl", {}, ...otherScores(line), ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    el("p", {}, el("a", { href: row.page }, "Images, arms, config and how to run it again")),
    ...rankedOn(row));
}

function findingsPanel(row) {
  const items = row.findings.map(([level, check, words]) =>
    el("li", {}, el("span", { class: `badge ${level}` }, LEVELS[level] ?? level), " ", el("strong", {}, check), ` ${words}`));
  return el("div", {}, el("h3", {}, "Audit"), items.length ? el("ul", {}, ...items) : el("p", {}, "Nothing was found."));
}
