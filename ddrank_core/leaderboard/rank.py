"""Rank the entries of a board: tables by score, with ties, rank intervals and what the order rests on.

Ties. The rows of a table stand in the order of their mean score. The first one leads a group; the rows below
join it up to the first that differs significantly from the leader, and that one leads the next group. So
every row is in one group, and groups follow each other. A row that no test can tell from a leader further up
(few repeats, much spread) can stand in a lower group: its rank interval says so.

Rank intervals. A row's rank is at least 1 + the rows that are significantly better, and at most the number of
rows less those that are significantly worse. Holm's correction covers all pairs at once, so all intervals of
a table hold together with 95 % confidence (Mogstad, Romano, Shaikh & Wilhelm 2024, "Inference for ranks"). A
bootstrap of the ranks, the common choice, does not hold: of ten methods nearly alike, its 95 % intervals held
the true rank in 64, 73, 79 and 82 of 100 cases at 3, 5, 10 and 20 repeats, and these in more than 99
(`benchmarks/significance.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal

import attrs

from ddrank_core.engine import score
from ddrank_core.engine.plan import ARMS_OF
from ddrank_core.leaderboard.significance import LEVEL, Sample, holm, kendall_tau, p_values
from ddrank_core.leaderboard.types import Axis, Entry, Measured, Track

By = Literal["lrs", "ars"]
_TABLES: tuple[Axis, ...] = ("augmentation", "labels")
"""What has tables of variants; another student's rows stand among all of that student."""
SYMBOLS: Mapping[By, str] = {"lrs": "w", "ars": "g"}
"""Of each score's weight."""
WEIGHT = 0.5
"""The default of `w` and `g`."""
MOST_BYTES = 1 << 50
"""Of a row: no set, labels or teacher has a PiB, and what has more may be too large for a float."""


@attrs.frozen(kw_only=True, order=True)
class Key:
    """What the rows of a table have in common: only then are their scores comparable."""

    dataset: str
    ipc: int
    track: Track
    student: str
    protocol: str
    of: str = ""
    """Of a table of variants: the submission's slug."""
    axis: Axis | Literal[""] = ""
    """Of a table of variants: the part of the recipe in which they differ."""


@attrs.frozen(kw_only=True)
class Row:
    """An entry and where it stands."""

    entry: Entry
    sample: Sample
    """The score by repeat."""
    mean: float
    ci95: float | None
    """Half-width of the 95 % t interval of the mean."""
    place: int
    """By the mean, from 1."""
    rank: int
    """The place of its group's leader: equal for all rows that are tied."""
    tied: bool
    lowest: int
    """The rank interval's better end."""
    highest: int
    accuracy: float | None
    """Mean test accuracy under the recipe, None where a repeat has none."""
    beats: tuple[str, ...]
    """The controls that are significantly worse, of those measured."""

    @property
    def bytes(self) -> int:
        """Return the size of all that a training needs: images, labels, and a teacher if it asks one."""
        return self.entry.image_bytes + self.entry.label_bytes + self.entry.teacher_bytes

    @property
    def accuracy_per_byte(self) -> float | None:
        return None if self.accuracy is None else self.accuracy / self.bytes


@attrs.frozen(kw_only=True)
class Reign:
    """The weights over which one method is first."""

    start: float
    end: float
    slug: str


@attrs.frozen(kw_only=True)
class Stability:
    """How the order changes with the weight of the score."""

    taus: tuple[tuple[float, float | None], ...]
    """(weight, Kendall's tau-b between the order there and the table's)."""
    reigns: tuple[Reign, ...]
    """Who is first, from weight 0 to 1."""


@attrs.frozen(kw_only=True)
class Table:
    """Entries that can be compared, in order."""

    key: Key
    by: By
    weight: float
    rows: tuple[Row, ...]
    p_values: tuple[tuple[float, ...], ...]
    """Holm-corrected, by place; 1 on the diagonal."""
    unranked: tuple[tuple[Entry, str], ...]
    """Entries without this score, and why."""
    stability: Stability


@attrs.frozen(kw_only=True)
class Agreement:
    """How alike two tables order the methods that both have."""

    one: Key
    other: Key
    common: int
    tau: float | None


# -- scores ------------------------------------------------------------------------------------


def undefined(measured: Measured, by: By) -> str | None:
    """Return why a run has no such score, or None if it has: as in the run itself, no repeat may lack."""
    for arm in ARMS_OF[by]:
        values = measured.arms.get(arm)
        if values is None:
            return f"not measured: {arm}"
        if lost := values.count(None):
            return f"{arm}: {lost} of {len(values)} repeats without accuracy"
    return None


def oversized(entry: Entry) -> str | None:
    """Return why an entry is not shown, if its record states a size that nothing has."""
    sizes = {"images": entry.image_bytes, "labels": entry.label_bytes, "teacher": entry.teacher_bytes}
    large = next((name for name, size in sizes.items() if size > MOST_BYTES), None)
    return None if large is None else f"its record states {large} of more than {MOST_BYTES >> 50} PiB"


def parts(measured: Measured, by: By) -> list[tuple[float, float]]:
    """Return, for each repeat of a run that has the score, the two differences that it weighs."""
    arms = [measured.arms[arm] for arm in ARMS_OF[by]]
    repeats: list[Mapping[str, float]] = [
        {arm: value for arm, value in zip(ARMS_OF[by], values, strict=True) if value is not None}
        for values in zip(*arms, strict=True)
    ]
    if by == "lrs":
        return [(score.ior(repeat), score.hlr(repeat)) for repeat in repeats]
    return [
        (repeat["syn-aug"] - repeat["rdm-aug"], repeat["syn-naug"] - repeat["rdm-naug"]) for repeat in repeats
    ]


_FORMULA = {"lrs": score.label_robust_score, "ars": score.augmentation_robust_score}


def sample(measured: Measured, by: By, weight: float) -> Sample:
    """Return the score by repeat, with the seeds that say which repeats of two runs are paired."""
    values = tuple(_FORMULA[by](*pair, weight) for pair in parts(measured, by))
    return Sample(values=values, seeds=measured.seeds)


# -- tables ------------------------------------------------------------------------------------


def tables(entries: Iterable[Entry], by: By = "lrs", weight: float = WEIGHT) -> list[Table]:
    """Return the tables of a board, those of submissions first and then those of variants.

    A table of variants ranks one distilled set under each augmentation, or each label mapping, its own among
    them; a set without variants has none.
    """
    grouped: dict[Key, list[Entry]] = {}
    for entry in entries:
        for key in _keys(entry):
            grouped.setdefault(key, []).append(entry)
    there = {key: found for key, found in grouped.items() if not key.of or any(e.variant for e in found)}
    order = sorted(there, key=lambda key: (key.axis, key))
    return [rank(there[key], key, by, weight) for key in order]


def _keys(entry: Entry) -> Iterator[Key]:
    about = entry.submission
    key = Key(
        dataset=about.dataset,
        ipc=about.ipc,
        track=entry.track,
        student=entry.student,
        protocol=entry.measured.protocol,
    )
    axis = entry.variant.axis if entry.variant else None
    if axis in (None, "student"):
        yield key
    yield from (attrs.evolve(key, of=about.slug, axis=of) for of in _TABLES if axis in (None, of))


def rank(entries: Sequence[Entry], key: Key, by: By = "lrs", weight: float = WEIGHT) -> Table:
    """Return the table of entries that share a key."""
    why = [(entry, oversized(entry) or undefined(entry.measured, by)) for entry in entries]
    samples = [(entry, sample(entry.measured, by, weight)) for entry, reason in why if reason is None]
    ordered = sorted(samples, key=lambda pair: (-_ordinal(pair[1].mean), identity(pair[0])))
    p = _corrected([found for _, found in ordered])
    return Table(
        key=key,
        by=by,
        weight=weight,
        rows=tuple(_rows(ordered, p, by, weight)),
        p_values=tuple(map(tuple, p)),
        unranked=tuple((entry, reason) for entry, reason in why if reason is not None),
        stability=_stability([entry for entry, _ in ordered], by, weight),
    )


def _ordinal(mean: float) -> int:
    """Return a mean as it is ordered by: rounding errors, which are others in a browser, make no order."""
    return math.floor(mean * 1e12 + 0.5)


def identity(entry: Entry) -> str:
    """Return what tells an entry from the others of its table."""
    variant = entry.variant
    return f"{entry.submission.slug} {variant.axis} {variant.name}" if variant else entry.submission.slug


def _corrected(samples: Sequence[Sample]) -> list[list[float]]:
    """Return the Holm-corrected p-values of all pairs as a symmetric table."""
    pairs = list(combinations(range(len(samples)), 2))
    table = [[1.0] * len(samples) for _ in samples]
    corrected = holm(p_values((samples[i], samples[j]) for i, j in pairs))
    for (i, j), p in zip(pairs, corrected, strict=True):
        table[i][j] = table[j][i] = p
    return table


def leaders(p: Sequence[Sequence[float]]) -> list[int]:
    """Return, for each place from 0, the place of its group's leader."""
    found: list[int] = []
    for place in range(len(p)):
        stays = found and p[found[-1]][place] > LEVEL
        found.append(found[-1] if stays else place)
    return found


def _rows(
    ordered: Sequence[tuple[Entry, Sample]], p: Sequence[Sequence[float]], by: By, weight: float
) -> Iterator[Row]:
    leader_of = leaders(p)
    for place, (entry, found) in enumerate(ordered):
        differs = [value <= LEVEL for value in p[place]]
        summary = score.summarise(by, found.values)
        yield Row(
            entry=entry,
            sample=found,
            mean=found.mean,
            ci95=summary.ci95,
            place=place + 1,
            rank=leader_of[place] + 1,
            tied=leader_of.count(leader_of[place]) > 1,
            lowest=1 + sum(differs[:place]),
            highest=len(p) - sum(differs[place + 1 :]),
            accuracy=accuracy(entry.measured),
            beats=_beaten(entry, found, by, weight),
        )


def accuracies(measured: Measured) -> tuple[float | None, ...]:
    """Return the test accuracies under the recipe, by repeat; none where no arm has them."""
    return measured.arms.get("syn-any") or measured.arms.get("syn-aug") or ()


def accuracy(measured: Measured) -> float | None:
    """Return the mean test accuracy under the recipe; None, as of scores, where any repeat has none."""
    found = [value for value in accuracies(measured) if value is not None]
    whole = found and len(found) == len(accuracies(measured))
    return score.mean_and_std(found)[0] if whole else None


def _beaten(entry: Entry, own: Sample, by: By, weight: float) -> tuple[str, ...]:
    """Return the controls that the entry is significantly better than, corrected for their number."""
    controls = {
        name: sample(control, by, weight)
        for name, control in entry.controls.items()
        if undefined(control, by) is None
    }
    corrected = holm(p_values((own, control) for control in controls.values()))
    return tuple(
        name
        for (name, control), p in zip(controls.items(), corrected, strict=True)
        if p <= LEVEL and own.mean > control.mean
    )


# -- stability ---------------------------------------------------------------------------------

_STEPS = 20
"""Taus are at 0, 0.05, ..., 1."""
_FINE = 200
"""Steps in which a change of the first place is looked for; a reign shorter than one can be missed."""


def _stability(entries: Sequence[Entry], by: By, weight: float) -> Stability:
    of_entries = [parts(entry.measured, by) for entry in entries]

    def means(at: float) -> list[int]:
        scores = ([_FORMULA[by](*pair, at) for pair in repeats] for repeats in of_entries)
        return [_ordinal(score.mean_and_std(values)[0]) for values in scores]

    here = means(weight)
    grid = [step / _STEPS for step in range(_STEPS + 1)]
    names = [identity(entry) for entry in entries]
    return Stability(
        taus=tuple((at, kendall_tau(here, means(at))) for at in grid),
        reigns=tuple(_reigns(names, means)) if entries else (),
    )


def _reigns(names: Sequence[str], means: Callable[[float], list[int]]) -> Iterator[Reign]:
    """Yield who is first over which weights; the ends are where mean curves cross, to 1e-9."""

    def first(at: float) -> int:
        values = means(at)
        return values.index(max(values))

    start, reigning = 0.0, first(0.0)
    for step in range(_FINE):
        left, right = step / _FINE, (step + 1) / _FINE
        for at, follower in _changes(first, left, reigning, right, first(right)):
            yield Reign(start=start, end=at, slug=names[reigning])
            start, reigning = at, follower
    yield Reign(start=start, end=1.0, slug=names[reigning])


def _changes(
    first: Callable[[float], int], left: float, at_left: int, right: float, at_right: int
) -> Iterator[tuple[float, int]]:
    """Yield (weight, who is first from there on) for every change that bisecting finds."""
    if at_left == at_right:
        return
    middle = (left + right) / 2
    if right - left < 1e-9:
        yield middle, at_right
        return
    at_middle = first(middle)
    yield from _changes(first, left, at_left, middle, at_middle)
    yield from _changes(first, middle, at_middle, right, at_right)


def agreements(found: Sequence[Table]) -> list[Agreement]:
    """Return how alike tables are that differ in nothing but the track, or in nothing but the student."""
    return [
        agreement(one, other)
        for one, other in combinations([table for table in found if not table.key.of], 2)
        if _differ_in(one.key, other.key) in ({"track"}, {"student"})
    ]


def agreement(one: Table, other: Table) -> Agreement:
    """Return Kendall's tau-b over the methods that two tables have in common."""
    means = [{row.entry.submission.slug: _ordinal(row.mean) for row in table.rows} for table in (one, other)]
    common = sorted(means[0].keys() & means[1].keys())
    tau = kendall_tau(*([of[slug] for slug in common] for of in means))
    return Agreement(one=one.key, other=other.key, common=len(common), tau=tau)


def _differ_in(one: Key, other: Key) -> set[str]:
    fields = attrs.fields(Key)
    return {field.name for field in fields if getattr(one, field.name) != getattr(other, field.name)}
