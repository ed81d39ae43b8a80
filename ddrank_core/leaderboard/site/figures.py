"""The arms of a submission as a drawing in the page's own markup, which follows its colours and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddrank_core.engine.score import ci95, mean_and_std
from ddrank_core.leaderboard.rank import accuracies
from ddrank_core.leaderboard.site.markup import text
from ddrank_core.leaderboard.types import Measured
from ddrank_core.report.arms import ARMS

_ROW, _TOP, _LEFT, _PLOT, _RIGHT = 30, 26, 118, 420, 150


def summary(values: Sequence[float | None]) -> tuple[float | None, float | None, int]:
    """Return mean, 95 % half-width and number of the repeats that did not diverge."""
    finite = [value for value in values if value is not None]
    if not finite:
        return None, None, 0
    if len(set(finite)) == 1:
        # A published accuracy, the same in every repeat: nothing is known of its error.
        return finite[0], None, len(finite)
    mean, std = mean_and_std(finite)
    return mean, ci95(std, len(finite)), len(finite)


def recipe_accuracy(measured: Measured) -> tuple[float | None, float | None]:
    """Return mean and 95 % half-width under the recipe; none, as of scores, where a repeat has none."""
    values = accuracies(measured)
    return summary(() if None in values else values)[:2]


def percent(mean: float | None, half: float | None = None) -> str:
    """Return an accuracy as a reader sees it.

    >>> percent(0.87556, 0.0123)
    '87.6 ± 1.2 %'
    """
    if mean is None:
        return "–"
    return f"{mean:.1%}".replace("%", " %") if half is None else f"{100 * mean:.1f} ± {100 * half:.1f} %"


def arms_svg(measured: Measured, label: str) -> str:
    """Draw every arm: a dot for each repeat, the mean, and its 95 % interval."""
    arms = {name: measured.arms[name] for name in ARMS if name in measured.arms}
    low, high = _range(arms)
    height = _TOP + _ROW * len(arms) + 8
    parts = [
        f'<svg class="arms" viewBox="0 0 {_LEFT + _PLOT + _RIGHT} {height}" role="img" '
        f'aria-label="{text(label)}">'
    ]
    for tick in _ticks(low, high):
        x = _x(tick, low, high)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{height - 4}"/>')
        parts.append(f'<text class="tick" x="{x}" y="14" text-anchor="middle">{100 * tick:g} %</text>')
    for index, (name, values) in enumerate(arms.items()):
        parts += _arm(name, values, _TOP + _ROW * (index + 0.5), low, high)
    return "".join([*parts, "</svg>"])


def _arm(name: str, values: Sequence[float | None], y: float, low: float, high: float) -> list[str]:
    mean, half, _ = summary(values)
    kind = name.partition("-")[0]
    parts = [f'<g class="{kind}"><text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{name}</text>']
    if mean is None:
        parts.append(f'<text class="tick" x="{_LEFT}" y="{y + 4}">diverged in every repeat</text></g>')
        return parts
    parts += [
        f'<circle class="repeat" cx="{_x(value, low, high)}" cy="{y}" r="3"/>'
        for value in values
        if value is not None
    ]
    if half is not None:
        ends = max(low, mean - half), min(high, mean + half)
        left, right = (_x(end, low, high) for end in ends)
        parts.append(f'<line class="error" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
    parts.append(f'<circle class="mean" cx="{_x(mean, low, high)}" cy="{y}" r="5"/>')
    beside = _LEFT + _PLOT + 12
    parts.append(f'<text class="value" x="{beside}" y="{y + 4}">{percent(mean, half)}</text></g>')
    return parts


def _range(arms: Mapping[str, Sequence[float | None]]) -> tuple[float, float]:
    """Return the ends of the axis: whole tens of per cent around the repeats and their intervals."""
    reach = []
    for values in arms.values():
        mean, half, _ = summary(values)
        if mean is not None:
            reach += [mean - (half or 0), mean + (half or 0), *(v for v in values if v is not None)]
    if not reach:
        return 0.0, 1.0
    low = max(0, int(10 * min(reach))) / 10
    high = min(10, int(10 * max(reach)) + 1) / 10
    return (low, high) if high > low else (0.0, 1.0)


def _ticks(low: float, high: float) -> list[float]:
    first, last = round(10 * low), round(10 * high)
    step = 1 if last - first <= 5 else 2
    return [tenth / 10 for tenth in range(first, last + 1, step)]


def _x(value: float, low: float, high: float) -> float:
    return round(_LEFT + _PLOT * (value - low) / (high - low), 2)
