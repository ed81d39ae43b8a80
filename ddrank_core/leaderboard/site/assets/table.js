"use strict";

// A table's rows: their order, what they show of ranks and scores, and which of them follow a moving slider.

const FIRST = 25; // rows of a table that are drawn until its button asks for all
const MARGIN = 100; // pixels around the window in which rows follow a moving slider

// One scale for a table's scores, which holds all their intervals; positions are per cent of the cell.
function scaleOf(scores) {
  const defined = scores.filter(({ mean }) => mean !== null);
  const low = Math.max(0, Math.min(...defined.map(({ mean, half }) => mean - (half ?? 0))));
  const high = Math.min(1, Math.max(...defined.map(({ mean, half }) => mean + (half ?? 0))));
  return (value) => `${(4 + (92 * (Math.min(high, Math.max(low, value)) - low)) / (high - low || 1)).toFixed(2)}%`;
}

function showRank(line) {
  const { place, rank, tied, lowest, highest, shownRank } = line;
  const wanted = place === null ? "–" : `${rank} ${tied} ${lowest} ${highest}`;
  if (wanted === shownRank) return;
  line.shownRank = wanted;
  const cell = line.cells.rank;
  if (place === null) return cell.replaceChildren("–");
  const interval = lowest === highest ? `${lowest}` : `${lowest}–${highest}`;
  cell.replaceChildren(`${rank}${tied ? "=" : ""}`, el("small", {}, interval));
}

function showScore(line, by, at) {
  const { mean, half } = line[by];
  if (mean === null) return;
  const { number, error, marks } = line.plots[by];
  marks.setProperty("--from", at(mean - (half ?? 0)));
  marks.setProperty("--to", at(mean + (half ?? 0)));
  marks.setProperty("--at", at(mean));
  number.data = fixed(mean, 3);
  if (half !== null) error.data = `± ${fixed(half, 3)}`;
}

function showTie({ element }, before, after) {
  const tie = before ? (after ? "middle" : "last") : after ? "first" : "none";
  if (element.dataset.tie !== tie) element.dataset.tie = tie;
}

const together = (one, other) => state.sort === "rank" && one && other && one.place && other.place && one.rank === other.rank;

// Show what the line at an index of the order has become.
function showLine(board, index) {
  const [before, line, after] = [board.ordered[index - 1], board.ordered[index], board.ordered[index + 1]];
  if (!line.element) make(line);
  showRank(line);
  for (const by of ["lrs", "ars"]) showScore(line, by, board.scales[by]);
  if (line.open) fillDetail(line);
  showTie(line, together(before, line), together(line, after));
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
  board.ordered = inOrder(board);
  const count = board.all ? board.ordered.length : Math.min(FIRST, board.ordered.length);
  for (let index = 0; index < count; index++) showLine(board, index);
  const drawn = board.ordered.slice(0, count);
  keepFocus(board.body, () => reorder(board.body, drawn.flatMap(elementsOf)));
  board.partly = false;
  board.more.textContent = `Show all ${board.ordered.length} rows`;
  board.more.hidden = count === board.ordered.length;
  for (const { key } of COLUMNS) {
    const sorted = key === state.sort ? (state.descending ? "descending" : "ascending") : "none";
    board.head[key].setAttribute("aria-sort", sorted);
  }
}

const elementsOf = (line) => (line.open ? [line.element, line.detail] : [line.element]);

// Bring a table's rows into order and move only those that are out of it: a moved row is laid out anew.
function reorder(body, wanted) {
  const keep = new Set(wanted);
  for (const element of [...body.children]) if (!keep.has(element)) element.remove();
  let there = body.firstElementChild;
  for (const element of wanted) {
    if (element === there) there = there.nextElementSibling;
    else body.insertBefore(element, there);
  }
}

// A row that is moved loses the focus.
function keepFocus(body, move) {
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  move();
  if (focused && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

// -- while a slider moves -----------------------------------------------------------------------

// Of a long table the rows in the window follow the slider, and change places with those that stood there. The
// others follow when it rests: laying 500 rows out anew takes longer than a step may.
function arrangeInWindow(board) {
  const there = [...board.body.rows];
  if (!board.all || board.ordered.length <= FIRST) return arrange(board);
  board.ordered = inOrder(board);
  const wanted = board.ordered.flatMap((line, index) => elementsOf(line).map((element) => ({ element, index })));
  const [from, to] = inWindow(there);
  keepFocus(board.body, () => {
    for (let at = from; at < to; at++) {
      showLine(board, wanted[at].index);
      exchange(there, at, wanted[at].element);
    }
  });
  board.partly = true;
}

// The first row in the window, and the first one below it.
function inWindow(rows) {
  const below = (edge) => {
    let [low, high] = [0, rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[middle].getBoundingClientRect().bottom < edge) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return [below(-MARGIN), Math.min(rows.length, below(innerHeight + MARGIN) + 1)];
}

// Put a row where another is, and that one where it was.
function exchange(there, at, wanted) {
  const out = there[at];
  if (out === wanted) return;
  const [body, next] = [out.parentNode, out.nextSibling];
  there[there.indexOf(wanted)] = out;
  there[at] = wanted;
  if (next === wanted) return body.insertBefore(wanted, out);
  body.insertBefore(out, wanted);
  body.insertBefore(wanted, next);
}
