"use strict";

// How stable a table's order is: over the weights of its score, and beside the tables that differ from it in
// nothing but the track, or in nothing but the student.
const Stability = (() => {
  const symbol = () => (state.by === "lrs" ? "w" : "g");
  const DIFFER = ["dataset", "ipc", "track", "student", "protocol"];

  // The tables that can be compared with a board, and the field in which each differs. Those that the filters
  // hide are among them.
  function others({ of, view }) {
    if (view !== "methods") return [];
    return boards.map((other) => ({ other, fields: DIFFER.filter((field) => other.of[field] !== of[field]) }))
      .filter(({ fields }) => fields.length === 1 && ["track", "student"].includes(fields[0]))
      .map(({ other, fields }) => ({ other, field: fields[0] }));
  }

  // Of the methods that this table shows, those that the other has too; the other follows the slider when it is shown.
  function agreement(board, { other, field }) {
    const at = state[symbol()];
    const there = other.lines.map(({ row }) => [row.slug, Scores.mean(row.own.parts, state.by, at)]).filter(([, mean]) => mean !== null);
    const here = board.ranked.map((line) => [line.row.slug, Scores.ordinal(line[state.by].mean)]);
    const name = field === "track" ? TRACKS[other.of.track] ?? other.of.track : other.of.student;
    return { other, name, ...Order.agreement(new Map(here), new Map(there)) };
  }

  function found(board) {
    const lines = board.ranked;
    const runs = lines.map(({ row }) => row.own);
    return {
      taus: Order.taus(runs, state.by, lines.map((line) => Scores.ordinal(line[state.by].mean))),
      reigns: Order.reigns(runs, state.by).map(({ start, end, first }) => ({ start, end, line: lines[first] })),
      agreements: others(board).map((other) => agreement(board, other)),
    };
  }

  // -- in words -----------------------------------------------------------------------------------

  const tauWords = (tau) => (tau === null ? "no order" : fixed(tau, 2));

  function leadWords(reigns) {
    const [first, ...later] = reigns;
    if (!later.length) return `${first.line.name} leads at every ${symbol()}`;
    if (later.length > 2) return `the first place changes ${later.length} times with ${symbol()}`;
    const then = later.map(({ end, line }) => `then ${line.name}${end < 1 ? ` up to ${three(end)}` : ""}`);
    return `${first.line.name} leads up to ${symbol()} = ${three(first.end)}, ${then.join(", ")}`;
  }

  const least = (taus) => taus.filter(([, tau]) => tau !== null).reduce((a, b) => (b[1] < a[1] ? b : a), [null, Infinity]);

  function orderWords(taus) {
    const [at, tau] = least(taus);
    if (at === null) return null;
    return tau === 1 ? `the order is the same at every ${symbol()}` : `least τ ${tauWords(tau)}, at ${symbol()} = ${three(at)}`;
  }

  function words({ taus, reigns, agreements }) {
    const compared = agreements.filter(({ common }) => common > 1).map(({ name, tau }) => `${tau === null ? "" : "τ "}${tauWords(tau)} with ${name}`);
    return [leadWords(reigns), orderWords(taus), ...compared].filter(Boolean).join("; ");
  }

  // -- drawn --------------------------------------------------------------------------------------

  const [TOP, HIGH, BAND] = [8, 84, 20];
  const across = (weight) => `${(100 * weight).toFixed(3)}%`;
  const line = (kind, x1, y1, x2, y2) => drawn("line", { class: kind, x1, y1, x2, y2 });
  const label = (x, y, anchor, content, dx = 0) => drawn("text", { x, y, dx, "text-anchor": anchor }, content);

  function chart({ taus, reigns }) {
    const low = Math.min(0, Math.floor(2 * least(taus)[1]) / 2);
    const y = (tau) => TOP + (HIGH * (1 - tau)) / (1 - low);
    const band = TOP + HIGH + 14;
    const bottom = band + BAND;
    const parts = [1, (1 + low) / 2, low].flatMap((tau) => [
      line("grid", 0, y(tau), "100%", y(tau)), label(-8, y(tau) + 4, "end", fixed(tau, tau % 1 ? 2 : 0))]);
    const defined = taus.filter(([, tau]) => tau !== null);
    defined.forEach(([at, tau], i) => {
      if (i) parts.push(line("tau", across(defined[i - 1][0]), y(defined[i - 1][1]), across(at), y(tau)));
      parts.push(drawn("circle", { class: "tau", cx: across(at), cy: y(tau), r: 2.5 }));
    });
    parts.push(...bands(reigns, band));
    for (const at of [0, 0.25, 0.5, 0.75, 1]) parts.push(label(across(at), bottom + 16, "middle", String(at)));
    const here = across(state[symbol()]);
    parts.push(line("here", here, 0, here, bottom + 3));
    return drawn("svg", { height: bottom + 22, role: "img", "aria-label": "The figures beside it, drawn" }, ...parts);
  }

  function bands(reigns, top) {
    const leaders = [...new Set(reigns.map((reign) => reign.line))];
    return reigns.flatMap(({ start, end, line: leader }, i) => {
      const rect = drawn("rect", { class: `reign-${leaders.indexOf(leader) % 4}`, x: across(start), y: top, width: across(end - start), height: BAND });
      const number = end - start < 0.05 ? [] : [label(across(start), top + 14, "start", String(i + 1), 5)];
      return [rect, ...number];
    });
  }

  const row = (head, ...cells) => el("tr", {}, el("th", { scope: "row" }, head), ...cells.map((cell) => el("td", {}, cell)));
  const table = (caption, head, lines) => el("table", { class: "pairs" }, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...head.map((title) => el("th", { scope: "col" }, title)))), el("tbody", {}, ...lines));

  function body(board, all) {
    const { taus, reigns, agreements } = all;
    const spans = reigns.map(({ start, end, line: leader }) => el("li", {}, `${leader.name}: ${symbol()} from ${three(start)} to ${three(end)}`));
    const none = board.view === "methods" ? "No other table has another track or student and these methods." : "";
    return [
      el("figure", {}, el("figcaption", {}, `Kendall's τ of the order here with that at each ${symbol()}, and who is first`), chart(all)),
      el("div", {}, el("h3", {}, "First place"), el("ol", {}, ...spans)),
      el("div", {}, agreements.length
        ? table("The same methods, measured otherwise", ["Table", "Kendall's τ", "Methods in both"],
          agreements.map(({ name, tau, common }) => row(name, tauWords(tau), String(common))))
        : el("p", {}, none)),
      el("div", { class: "unseen" }, table(`Kendall's τ by ${symbol()}`, [symbol(), "τ"], taus.map(([at, tau]) => row(String(at), tauWords(tau))))),
    ];
  }

  function panel(board) {
    const summary = el("span");
    const inside = el("div", { class: "stable" });
    const details = el("details", { class: "stability" }, el("summary", {}, el("strong", {}, "Stability"), " ", summary), inside);
    details.addEventListener("toggle", () => show(board));
    return { details, summary, inside };
  }

  function show(board) {
    const { details, summary, inside } = board.stability;
    details.hidden = board.ranked.length < 2;
    // The observer calls again when the table comes near the window.
    if (details.hidden || !board.near) return;
    const all = found(board);
    summary.textContent = words(all);
    if (details.open) inside.replaceChildren(...body(board, all));
  }

  return { panel, show, found };
})();
