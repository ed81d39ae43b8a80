"""Draw the measurements of one_trial.py and growth.py.

    python benchmarks/pictures.py FILE.json ...

Each picture is written beside its file, as .svg.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

OURS, PEER, QUIET = "#1f6f8b", "#c98a2b", "#8a8a8a"
TITLES = {
    "ipc": "images per class",
    "classes": "classes",
    "side": "image side, pixels",
    "cohort": "trials in a cohort",
    "repeats": "repeats",
}
DURATIONS = {1e-3: "1 ms", 1e-2: "10 ms", 0.1: "100 ms", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min",
             3600: "1 h", 36000: "10 h", 360000: "100 h"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    for file in parser.parse_args().files:
        content = json.loads(file.read_text())
        draw = growth if content.get("what") == "growth" else comparison
        draw(content, file.with_suffix(".svg"))


# -- against the peer --------------------------------------------------------------------------


def comparison(content: Mapping[str, Any], path: Path) -> None:
    """Draw both sides' times as bars on a logarithmic scale, with the ratio beside each pair."""
    rows = [row for row in content["rows"] if not row["what"].startswith("trial")]
    figure = Figure(figsize=(8, 1.4 + 0.62 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    largest = max(seconds(row, row["peer"]["max"]) for row in rows)
    smallest = min(seconds(row, row["ours"]["min"]) for row in rows)
    for place, row in enumerate(rows):
        for side, colour, shift in (("ours", OURS, -0.19), ("peer", PEER, 0.19)):
            bar(axes, place + shift, row, side, colour)
        axes.text(
            largest * 6, place, f"{row['ratio']['median']:.1f}x", va="center", ha="left", fontweight="bold"
        )
    axes.text(largest * 6, -0.6, "ratio", ha="left", color=QUIET)
    axes.set_xscale("log")
    axes.set_xlim(smallest / 2.5, largest * 25)
    ticks = [tick for tick in DURATIONS if smallest / 2.5 <= tick <= largest * 2]
    axes.set_xticks(ticks, [DURATIONS[tick] for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [bar_title(row, content) for row in rows])
    axes.invert_yaxis()
    handles = [Patch(color=colour) for colour in (OURS, PEER)]
    figure.legend(handles, ["ours", "ddranking 0.2.0"], loc="outside upper left", ncols=2, frameon=False)
    plain(axes)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(
        f"{content['machine']['name']}; logarithmic; lines: smallest to largest round", color=QUIET
    )
    save(figure, path)


def bar(axes: Axes, place: float, row: Mapping[str, Any], side: str, colour: str) -> None:
    """Draw a median, with a line from the smallest to the largest round."""
    middle, low, high = (seconds(row, row[side][name]) for name in ("median", "min", "max"))
    axes.barh(place, middle, height=0.34, color=colour)
    axes.plot([low, high], [place, place], color="black", linewidth=1)
    axes.text(high * 1.08, place, duration(middle), va="center", ha="left", fontsize=8, color=QUIET)


def bar_title(row: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    several = len(content["settings"]["augmentation"]) > 1 and row["augmentation"] is not None
    augmented = f", {row['augmentation']}" if several else ""
    ipc = "" if row["ipc"] is None else f", IPC {row['ipc']}"
    extrapolated = "\n(extrapolated)" if row["what"].startswith("whole") else ""
    return f"{row['what'].replace('hard-label ', '')}{ipc}{augmented}{extrapolated}"


def seconds(row: Mapping[str, Any], value: float) -> float:
    return value / 1000 if row["unit"] == "ms" else value


def duration(value: float) -> str:
    """Return seconds in the unit that people would use.

    >>> duration(0.0241), duration(8.4), duration(228), duration(40140)
    ('24.1 ms', '8.40 s', '3.80 min', '11.2 h')
    """
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if value >= size:
            return f"{common.number(value / size)} {unit}"
    return f"{common.number(1000 * value)} ms"


# -- growth ------------------------------------------------------------------------------------


def growth(content: Mapping[str, Any], path: Path) -> None:
    """Draw a small picture for each quantity that was varied."""
    rows: list[Mapping[str, Any]] = content["rows"]
    names = list(dict.fromkeys(row["axis"] for row in rows))
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.9 * lines + 0.4), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, place + 1)
        panel(axes, [row for row in rows if row["axis"] == name])
    figure.suptitle(
        f"{content['machine']['name']}: medians, lines from the smallest to the largest of "
        f"{content['settings']['rounds']} rounds; dashed: in proportion (cohort: as alone)",
        fontsize=9,
        color=QUIET,
    )
    save(figure, path)


def panel(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw one quantity's growth; dashed is what time in proportion to it would be."""
    values, medians = [row["value"] for row in rows], [row["median"] for row in rows]
    spread = [[row["median"] - row["min"] for row in rows], [row["max"] - row["median"] for row in rows]]
    axes.errorbar(values, medians, yerr=spread, color=OURS, marker="o", markersize=4, linewidth=1.5)
    shared = rows[0]["axis"] == "cohort"
    # An image of twice the side has four times the pixels; a cohort's time is already shared.
    power = {"side": 2, "cohort": 0}.get(rows[0]["axis"], 1)
    expected = [medians[0] * (value / values[0]) ** power for value in values]
    axes.plot(values, expected, color=QUIET, linestyle="--", linewidth=1)
    whole = rows[0]["what"] == "whole run"
    if not (whole or shared):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(min([*medians, *expected]) / 1.6, max([*medians, *expected]) * 2)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    else:
        axes.set_ylim(0, 1.25 * max(row["max"] for row in rows))
    if shared:
        axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    for value, row in zip(values, rows, strict=True):
        axes.annotate(
            common.number(row["median"]), (value, row["max"]), textcoords="offset points", xytext=(0, 4),
            ha="center", fontsize=7,
        )  # fmt: skip
    axes.margins(x=0.12)
    axes.set_title(TITLES[rows[0]["axis"]], fontsize=10, loc="left")
    axes.set_ylabel("s, whole run" if whole else "ms per trial-epoch", fontsize=8)
    axes.tick_params(labelsize=8)
    plain(axes)


def plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date, so that the same figures give the same file.
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


if __name__ == "__main__":
    main()
