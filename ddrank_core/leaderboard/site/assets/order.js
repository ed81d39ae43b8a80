"use strict";

// What an order hangs on, the weight of its score and what was measured: the same arithmetic as in
// ddrank_core/leaderboard/rank.py, checked against it by the tests.
const Order = (() => {
  const FINE = 200; // steps in which a change of the first place is looked for
  const COARSE = 10; // of them, between two weights at which tau is taken

  // The mean score of a run at each of the fine steps, whatever the weight that is chosen.
  function curve(run, by) {
    run.curves ??= {};
    run.curves[by] ??= Float64Array.from({ length: FINE + 1 }, (_, step) => Scores.mean(run.parts, by, step / FINE));
    return run.curves[by];
  }

  // Kendall's tau-b of two lists of scores, null where either has no order. Sorted by one list, the pairs that
  // the other has the other way round are the exchanges of a merge sort (Knight 1966).
  function tau(one, other) {
    const n = one.length;
    const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => one[i] - one[j] || other[i] - other[j]);
    const [a, b] = [order.map((i) => one[i]), Float64Array.from(order, (i) => other[i])];
    const both = equalPairs(n, (i) => a[i] === a[i - 1] && b[i] === b[i - 1]);
    const inOne = equalPairs(n, (i) => a[i] === a[i - 1]);
    const exchanges = sortAndCount(b);
    const inOther = equalPairs(n, (i) => b[i] === b[i - 1]);
    const pairs = (n * (n - 1)) / 2;
    const untied = (pairs - inOne) * (pairs - inOther);
    return untied ? (pairs - inOne - inOther + both - 2 * exchanges) / Math.sqrt(untied) : null;
  }

  // How many pairs of a sorted list are equal, by whether each is equal to the one before it.
  function equalPairs(n, asBefore) {
    let [pairs, run] = [0, 0];
    for (let i = 1; i < n; i++) {
      run = asBefore(i) ? run + 1 : 0;
      pairs += run;
    }
    return pairs;
  }

  function sortAndCount(values) {
    const n = values.length;
    let [from, to, count] = [values, new Float64Array(n), 0];
    for (let width = 1; width < n; width *= 2) {
      for (let start = 0; start < n; start += 2 * width) {
        const [middle, end] = [Math.min(start + width, n), Math.min(start + 2 * width, n)];
        let [left, right] = [start, middle];
        for (let at = start; at < end; at++) {
          if (left < middle && (right >= end || from[left] <= from[right])) to[at] = from[left++];
          else {
            to[at] = from[right++];
            count += middle - left;
          }
        }
      }
      [from, to] = [to, from];
    }
    if (from !== values) values.set(from);
    return count;
  }

  // [weight, tau between the order there and the one that means give] at 0, 0.05, ..., 1.
  function taus(runs, by, means) {
    return Array.from({ length: FINE / COARSE + 1 }, (_, step) => {
      const at = step * COARSE;
      return [at / FINE, tau(means, runs.map((run) => curve(run, by)[at]))];
    });
  }

  // Who is first over which weights: {start, end, first}, an index of the list; of equals, the earlier one.
  function reigns(runs, by) {
    const curves = runs.map((run) => curve(run, by));
    const firstOf = (valueOf) => {
      let first = 0;
      for (let i = 1; i < runs.length; i++) if (valueOf(i) > valueOf(first)) first = i;
      return first;
    };
    const firstAt = (weight) => {
      const means = runs.map((run) => Scores.mean(run.parts, by, weight));
      return firstOf((i) => means[i]);
    };
    const found = [];
    let [start, reigning] = [0, firstOf((i) => curves[i][0])];
    for (let step = 0; step < FINE; step++) {
      const [left, right] = [step, step + 1].map((at) => ({ at: at / FINE, first: firstOf((i) => curves[i][at]) }));
      left.first = reigning;
      for (const { at, first } of changes(firstAt, left, right)) {
        found.push({ start, end: at, first: reigning });
        [start, reigning] = [at, first];
      }
    }
    return runs.length ? [...found, { start, end: 1, first: reigning }] : [];
  }

  // Every change of the first place that bisecting finds, to 1e-9.
  function changes(firstAt, left, right) {
    if (left.first === right.first) return [];
    const at = (left.at + right.at) / 2;
    if (right.at - left.at < 1e-9) return [{ at, first: right.first }];
    const middle = { at, first: firstAt(at) };
    return [...changes(firstAt, left, middle), ...changes(firstAt, middle, right)];
  }

  // Two orders of what both have, each a map from a name to a score.
  function agreement(one, other) {
    const common = [...one.keys()].filter((name) => other.has(name)).sort();
    return { common: common.length, tau: tau(common.map((name) => one.get(name)), common.map((name) => other.get(name))) };
  }

  return { tau, taus, reigns, agreement };
})();
