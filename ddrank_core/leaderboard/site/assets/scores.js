"use strict";

// Accuracies to scores, ranks and ties: the same arithmetic as ddrank_core, checked against it by the tests.
const Scores = (() => {
  const toUnit = (exponent) => (Math.exp(exponent) - Math.exp(-1)) / (Math.E - Math.exp(-1));

  // The difference of two arms in every repeat; null where one is missing or a trial of it diverged.
  function difference(arms, one, other) {
    const [a, b] = [arms[one], arms[other]];
    if (!a?.length || !b?.length || a.includes(null) || b.includes(null)) return null;
    return a.map((accuracy, repeat) => accuracy - b[repeat]);
  }

  // What the scores are made of, by repeat, whatever their weights.
  function parts(arms) {
    const accuracy = arms["syn-any"] ?? arms["syn-aug"];
    return {
      hlr: difference(arms, "full-hard", "syn-hard"),
      ior: difference(arms, "syn-any", "rdm-any"),
      augmented: difference(arms, "syn-aug", "rdm-aug"),
      plain: difference(arms, "syn-naug", "rdm-naug"),
      accuracy: accuracy?.includes(null) ? null : accuracy ?? null,
    };
  }

  // As exact as Python's fsum for what is added here: equal repeats in another order have an equal mean.
  function total(numbers) {
    let [sum, lost] = [0, 0];
    for (let i = 0; i < numbers.length; i++) {
      const [x, next] = [numbers[i], sum + numbers[i]];
      lost += Math.abs(sum) >= Math.abs(x) ? sum - next + x : x - next + sum;
      sum = next;
    }
    return sum + lost;
  }

  const mixed = (one, other, weigh) => (one && other ? one.map((a, repeat) => toUnit(weigh(a, other[repeat]))) : null);
  const lrs = ({ ior, hlr }, w) => mixed(ior, hlr, (gain, loss) => w * gain - (1 - w) * loss);
  const ars = ({ augmented, plain }, g) => mixed(augmented, plain, (a, p) => g * a + (1 - g) * p);

  // A mean as it is ordered by: rounding errors, which are others in Python, make no order.
  const ordinal = (value) => Math.floor(value * 1e12 + 0.5);

  // The mean score at a weight as it is ordered by, null where it is undefined.
  function mean(parts, by, at) {
    const values = (by === "lrs" ? lrs : ars)(parts, at);
    return values && ordinal(total(values) / values.length);
  }

  // Mean and half-width of the 95 % t interval; no half-width for a single value.
  function summary(numbers, t975) {
    if (!numbers?.length) return { mean: null, half: null };
    const n = numbers.length;
    const middle = total(numbers) / n;
    if (n < 2) return { mean: middle, half: null };
    const squares = numbers.reduce((sum, x) => sum + (x - middle) ** 2, 0);
    return { mean: middle, half: (t975[n] * Math.sqrt(squares / (n - 1))) / Math.sqrt(n) };
  }

  // -- significance, as in ddrank_core/leaderboard/significance.py ------------------------------

  const LEVEL = 0.05;
  const NO_SPREAD = 1e-12;

  // Two-sided p of Student's t: sums in closed form for whole degrees of freedom (Abramowitz & Stegun
  // 26.7.3 and 26.7.4), the incomplete beta function for others.
  function twoSided(t, freedom) {
    if (!Number.isInteger(freedom)) return beta(freedom / (freedom + t * t), freedom / 2, 0.5);
    const odd = freedom % 2;
    const square = freedom / (freedom + t * t); // of the cosine of atan(t / sqrt(freedom))
    const sine = Math.sqrt(1 - square);
    let term = odd ? Math.sqrt(square) : 1;
    let sum = 0;
    for (let k = odd ? 3 : 2; k <= freedom; k += 2) {
      sum += term;
      term *= (square * (k - 1)) / k;
    }
    const inside = odd ? (2 / Math.PI) * (Math.asin(sine) + sine * sum) : sine * sum;
    return Math.max(0, 1 - inside);
  }

  function logGamma(x) {
    // Stirling's series, after steps up to where it is exact to double precision.
    let shift = 0;
    while (x < 12) shift -= Math.log(x++);
    const z = 1 / (x * x);
    return shift + (x - 0.5) * Math.log(x) - x + 0.9189385332046727
      + (1 / 12 - z * (1 / 360 - z * (1 / 1260 - z * (1 / 1680 - z / 1188)))) / x;
  }

  // Regularised incomplete beta function, by Lentz's continued fraction.
  function beta(x, a, b) {
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    if (x > (a + 1) / (a + b + 2)) return 1 - beta(1 - x, b, a);
    const front = Math.exp(
      logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log(1 - x)) / a;
    let [c, d] = [1, 1 / (1 - ((a + b) * x) / (a + 1))];
    let fraction = d;
    for (let m = 1; m < 300; m++) {
      let step = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
      d = 1 / (1 + step * d);
      c = 1 + step / c;
      fraction *= c * d;
      step = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
      d = 1 / (1 + step * d);
      c = 1 + step / c;
      fraction *= c * d;
      if (Math.abs(c * d - 1) < 1e-15) break;
    }
    return front * fraction;
  }

  function spread(numbers) {
    const n = numbers.length;
    let sum = 0;
    for (let i = 0; i < n; i++) sum += numbers[i];
    const mean = sum / n;
    let squares = 0;
    for (let i = 0; i < n; i++) squares += (numbers[i] - mean) ** 2;
    return [mean, n < 2 ? null : Math.sqrt(squares / (n - 1))];
  }

  const permuted = (difference, smallest) => (Math.abs(difference) < NO_SPREAD ? 1 : smallest);

  // Differences of repeats with equal seeds; null where the two do not have the same seeds.
  function paired(one, other) {
    if (!one.seeds.length || one.seeds.length !== other.seeds.length) return null;
    const partners = one.seeds.map((seed) => other.seeds.indexOf(seed));
    return partners.includes(-1) ? null : one.values.map((value, repeat) => value - other.values[partners[repeat]]);
  }

  // How often equal methods would differ as much. A sample is {values, seeds, seedKey}.
  function pValue(one, other) {
    if (one.seedKey && one.seedKey === other.seedKey) return sameSeeds(one.values, 0, other.values, 0, one.values.length);
    const differences = paired(one, other);
    return differences ? student(...spread(differences), differences.length) : welch(one.values, other.values);
  }

  // Of n repeats in each of two lists, from these places on. Nothing is made for a pair: a table of 500 rows has
  // 125,000 of them.
  function sameSeeds(one, here, other, there, n) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += one[here + i] - other[there + i];
    const mean = sum / n;
    let squares = 0;
    for (let i = 0; i < n; i++) {
      const off = one[here + i] - other[there + i] - mean;
      squares += off * off;
    }
    return student(mean, n < 2 ? null : Math.sqrt(squares / (n - 1)), n);
  }

  // The p-value of every pair, by place: of all tables but odd ones the seeds are the same throughout.
  function allPairs(samples) {
    const n = samples.length;
    const p = new Float64Array((n * (n - 1)) / 2);
    const [key, repeats] = [samples[0]?.seedKey, samples[0]?.values.length];
    const alike = key && samples.every(({ seedKey }) => seedKey === key);
    const flat = alike && Float64Array.from(samples.flatMap(({ values }) => values));
    let at = 0;
    for (let i = 0; i < n; i++) {
      for (let j = i + 1; j < n; j++) {
        p[at++] = alike ? sameSeeds(flat, i * repeats, flat, j * repeats, repeats) : pValue(samples[i], samples[j]);
      }
    }
    return p;
  }

  function student(mean, std, n) {
    if (std === null) return 1;
    if (std < NO_SPREAD) return permuted(mean, 2 / 2 ** n);
    return twoSided(mean / (std / Math.sqrt(n)), n - 1);
  }

  function welch(one, other) {
    const [[mean, std], [otherMean, otherStd]] = [spread(one), spread(other)];
    if (std === null || otherStd === null) return 1;
    if (Math.max(std, otherStd) < NO_SPREAD) {
      return permuted(mean - otherMean, 2 / choose(one.length + other.length, one.length));
    }
    const parts = [std ** 2 / one.length, otherStd ** 2 / other.length];
    const both = parts[0] + parts[1];
    const freedom = both ** 2 / (parts[0] ** 2 / (one.length - 1) + parts[1] ** 2 / (other.length - 1));
    return twoSided((mean - otherMean) / Math.sqrt(both), freedom);
  }

  function choose(n, k) {
    let found = 1;
    for (let i = 1; i <= k; i++) found = (found * (n - k + i)) / i;
    return Math.round(found);
  }

  // The largest p that Holm's step-down rejects at LEVEL, or -1. The number of rejections is the fixed point of
  // counting those below LEVEL / (all - rejected), which needs no sorting.
  function holmThreshold(p) {
    let [rejected, threshold] = [0, -1];
    for (;;) {
      if (rejected === p.length) return threshold;
      const next = LEVEL / (p.length - rejected);
      let count = 0;
      for (let i = 0; i < p.length; i++) if (p[i] <= next) count++;
      if (count === rejected) return threshold;
      [rejected, threshold] = [count, next];
    }
  }

  // Places, ties and rank intervals of samples {values, seeds, seedKey, mean, id}, as in leaderboard/rank.py:
  // the first row leads a group, which ends at the first row that differs significantly from its leader.
  function rank(samples) {
    const keyed = samples.map((sample) => [ordinal(sample.mean), sample]);
    keyed.sort(([a, one], [b, other]) => b - a || (one.id < other.id ? -1 : one.id > other.id ? 1 : 0));
    const ordered = keyed.map(([, sample]) => sample);
    const n = ordered.length;
    const p = allPairs(ordered);
    const threshold = holmThreshold(p);
    const rows = ordered.map((sample, place) => ({ sample, place: place + 1, lowest: 1, highest: n }));
    let [leader, next, at] = [0, 0, 0];
    for (let i = 0; i < n; i++) {
      if (i === next) leader = i;
      rows[i].rank = leader + 1;
      if (i === leader) next = n;
      for (let j = i + 1; j < n; j++, at++) {
        if (p[at] > threshold) continue;
        rows[j].lowest++;
        rows[i].highest--;
        if (i === leader && j < next) next = j;
      }
    }
    rows.forEach((row, i) => {
      row.tied = rows[i - 1]?.rank === row.rank || rows[i + 1]?.rank === row.rank;
    });
    return rows;
  }

  // Which of the others a sample is significantly better than, corrected for their number.
  function beats(own, others) {
    const p = others.map((other) => pValue(own, other));
    const threshold = holmThreshold(p);
    return others.map((other, i) => p[i] <= threshold && own.mean > other.mean);
  }

  return { parts, lrs, ars, ordinal, mean, summary, rank, beats, pValue, twoSided };
})();
