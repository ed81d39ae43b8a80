"""The picture that compares students: each asked score of each of them, with its error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddrank_core.report.arms import SCORES
from ddrank_core.report.figures import FAINT, INK, figure_of, style_axis, write_text
from ddrank_core.report.record import RunReport
from ddrank_core.structure import Chosen, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def label(student: Chosen[Any]) -> str:
    """Return a student in a few words: its name, and what the config gave of its parameters."""
    values = plain(student.component)
    return " ".join([student.use, *(f"{name}={values[name]}" for name in student.given)])


def students_png(reports: Sequence[RunReport], path: Path) -> None:
    """Draw a panel per score; in each, a row per student: the mean with its 95 % interval."""
    asked = reports[0].config.scores
    plot, left, panel, gap = 40 * len(reports), 330, 250, 36
    width, height = left + len(asked) * (panel + gap), 120 + plot
    with figure_of(width, height, path) as figure:
        write_text(figure, 24, height - 28, "Scores by student", size=11, weight="bold")
        words = "marker: mean    bar: 95 % interval of the mean    faint: each repeat"
        write_text(figure, width - 24, height - 28, words, size=8, color=FAINT, ha="right")
        for column, name in enumerate(asked):
            x = left + column * (panel + gap)
            axes = figure.add_axes((x / width, 44 / height, panel / width, plot / height))
            _panel(axes, name, reports)
            title = f"{SCORES[name].title} ({SCORES[name].better} is better)"
            write_text(figure, x, height - 62, title, size=8.5, weight="bold")
        for row, report in enumerate(reports):
            y = 44 + plot * (1 - (row + 0.5) / len(reports))
            text = label(report.config.student)
            write_text(figure, 24, y, text if len(text) <= 36 else text[:35] + "…", size=8.5, color=INK)


def _panel(axes: Axes, name: str, reports: Sequence[RunReport]) -> None:
    words, blue = SCORES[name], "#0072B2"
    style_axis(axes, len(reports))
    for row, report in enumerate(reports):
        score = report.scores[name]
        if score.mean is None:
            beside = axes.get_yaxis_transform()
            axes.text(0.5, row, "undefined", transform=beside, ha="center", va="center", size=8, color=FAINT)
            continue
        half = None if score.ci95 is None else words.scale * score.ci95
        axes.errorbar(words.scale * score.mean, row, xerr=half, fmt="o", color=blue, ms=6, capsize=3)
        values = [words.scale * value for value in score.values]
        axes.scatter(values, [row + 0.22] * len(values), s=12, color=blue, alpha=0.3, linewidths=0)
