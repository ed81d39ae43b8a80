"""The pictures of a run: the distilled images by class, and the arms with their errors.

Both are drawn with matplotlib's object interface on Agg, from matplotlib's own defaults: no window, no
state that another drawing of the same process could see, and the same bytes for the same values.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddrank_core.report.arms import ARMS, SCORES, ci95, in_order, undefined
from ddrank_core.results import ArmResult, ScoreResult

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MAX_CLASSES = 20
MAX_IMAGES = 10
"""Per class."""

# A power of two: pixels to inches and back is then exact, and so is the size of the picture.
_DPI = 128
_TILE = 96
_LARGEST_TILE = 256
_GAP = 4
_MARGIN = 16
_TITLE_HEIGHT = 52
_NAME_HEIGHT = 28
_PER_ROW = 10
# Room for a character: a digit of the names' size, and the mean over a bold line of the title's.
_NAME_CHARACTER, _TITLE_CHARACTER = 10, 11

INK, FAINT, _LINE, _BAND = "#1f2328", "#59636e", "#d1d9e0", "#f6f8fa"
# Okabe & Ito's palette: told apart with any colour vision, and each kind has its own marker too.
_KINDS = {
    "full": ("#000000", "D"),
    "syn": ("#0072B2", "o"),
    "rdm": ("#D55E00", "s"),
}


def distilled_png(
    images_unit: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Draw a row of distilled images for each class, or the classes side by side where each has one.

    `images_unit` is float [N, C, H, W] and clipped to 0..1; one channel is shown as grey, three as
    colour, any other number as the mean of the channels. `labels` is integer [N]. Each pixel of an
    image becomes a square of whole pixels. At most `MAX_CLASSES` classes and `MAX_IMAGES` images of
    each are drawn, the first ones, and the title says so.
    """
    import numpy as np

    images, labels = np.asarray(images_unit), np.asarray(labels)
    shown = [np.flatnonzero(labels == k)[:MAX_IMAGES] for k in range(min(len(class_names), MAX_CLASSES))]
    counts = np.bincount(labels, minlength=len(class_names))
    columns = max(1, min(MAX_IMAGES, int(counts.max())))
    if counts.max() == 1:
        _side_by_side(images, shown, class_names, distilled_title(counts), path)
        return
    tile_height, tile_width = tile_size(images.shape[2], images.shape[3])
    names = [_shortened(name) for name in class_names[:MAX_CLASSES]]
    left = _MARGIN + 12 + _NAME_CHARACTER * max(map(len, names))
    title = distilled_title(counts)
    right = max(left + columns * (tile_width + _GAP) - _GAP, _MARGIN + _TITLE_CHARACTER * len(title))
    width = right + _MARGIN
    height = _TITLE_HEIGHT + len(names) * (tile_height + _GAP) - _GAP + _MARGIN
    with figure_of(width, height, path) as figure:
        write_text(figure, _MARGIN, height - 22, title, size=10, weight="bold")
        for row, (name, members) in enumerate(zip(names, shown, strict=True)):
            bottom = height - _TITLE_HEIGHT - tile_height - row * (tile_height + _GAP)
            write_text(figure, left - 12, bottom + tile_height / 2, name, ha="right")
            if not len(members):
                write_text(figure, left, bottom + tile_height / 2, "no image", color=FAINT)
            for column, index in enumerate(members):
                place = left + column * (tile_width + _GAP)
                figure.figimage(tile(images[index]), place, bottom, origin="upper")


def _side_by_side(
    images: NDArray[np.floating[Any]],
    shown: Sequence[NDArray[np.integer[Any]]],
    class_names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Draw one image per class, ten in a row, the class's name above each."""
    tile_height, tile_width = tile_size(images.shape[2], images.shape[3])
    names = [_shortened(name) for name in class_names[: len(shown)]]
    step = max(tile_width, _NAME_CHARACTER * max(map(len, names))) + 2 * _GAP
    rows, columns = -(-len(shown) // _PER_ROW), min(len(shown), _PER_ROW)
    width = max(columns * step, _TITLE_CHARACTER * len(title)) + 2 * _MARGIN
    height = _TITLE_HEIGHT + rows * (tile_height + _NAME_HEIGHT) + _MARGIN
    with figure_of(width, height, path) as figure:
        write_text(figure, _MARGIN, height - 22, title, size=10, weight="bold")
        for place, (name, members) in enumerate(zip(names, shown, strict=True)):
            left = _MARGIN + place % _PER_ROW * step
            top = height - _TITLE_HEIGHT - place // _PER_ROW * (tile_height + _NAME_HEIGHT)
            write_text(figure, left + tile_width / 2, top - _NAME_HEIGHT / 2, name, ha="center")
            for index in members:
                bottom = top - _NAME_HEIGHT - tile_height
                figure.figimage(tile(images[index]), left, bottom, origin="upper")


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Return the drawn size, in pixels, of an image of `height` x `width`.

    >>> tile_size(8, 8), tile_size(28, 28), tile_size(32, 32)
    ((96, 96), (84, 84), (96, 96))
    """
    step, scale = _step_and_scale(height, width)
    return -(-height // step) * scale, -(-width // step) * scale


def arms_png(arms: Mapping[str, ArmResult], scores: Mapping[str, ScoreResult], path: Path) -> None:
    """Draw each arm's accuracy: its mean with the 95 % interval, and every repeat as a faint dot."""
    rows = in_order(arms)
    notes = [_score_line(name, scores[name]) for name in SCORES if name in scores]
    bottom, plot = 72 + 22 * len(notes), 46 * max(1, len(rows))
    width, height = 1280, 56 + plot + bottom
    with figure_of(width, height, path) as figure:
        write_text(figure, 24, height - 28, "Test accuracy by arm", size=11, weight="bold")
        legend = "marker: mean    bar: 95 % interval of the mean    faint: each repeat"
        if any(arm.same_as for arm in rows):
            legend += "    hollow: the trials of another arm"
        write_text(figure, width - 24, height - 28, legend, size=8, color=FAINT, ha="right")
        axes = figure.add_axes((410 / width, bottom / height, 600 / width, plot / height))
        _style(axes, rows)
        for row, arm in enumerate(rows):
            _draw_arm(axes, row, arm)
        for line, note in enumerate(notes):
            y = 22 * (len(notes) - line) + 4
            write_text(figure, 24, y, note[0], weight="bold")
            write_text(figure, 110, y, note[1])


def _draw_arm(axes: Axes, row: int, arm: ArmResult) -> None:
    color, marker = _KINDS.get(arm.name.partition("-")[0], (INK, "o"))
    beside = axes.get_yaxis_transform()
    words: dict[str, Any] = {"transform": beside, "va": "center", "parse_math": False}
    axes.text(-0.012, row - 0.16, arm.name, ha="right", size=9, weight="bold", color=color, **words)
    axes.text(-0.012, row + 0.2, ARMS.get(arm.name, ""), ha="right", size=7.5, color=FAINT, **words)
    if arm.mean is None:
        axes.text(0.5, row, undefined(arm), ha="center", size=8.5, style="italic", color=FAINT, **words)
    else:
        repeats = [100 * accuracy for accuracy in arm.accuracies if accuracy is not None]
        if len(repeats) > 1:
            below = [row + 0.2] * len(repeats)
            axes.scatter(repeats, below, s=16, color=color, alpha=0.3, linewidths=0, zorder=2)
        half = ci95(arm)
        axes.errorbar(
            100 * arm.mean,
            row - 0.1,
            xerr=None if half is None else 100 * half,
            fmt=marker,
            color=color,
            # An alias is drawn hollow: it is no second piece of evidence.
            mfc="white" if arm.same_as else color,
            ms=6.5,
            capsize=3.5,
            elinewidth=1.6,
            capthick=1.6,
            zorder=3,
        )
    number, remark = _beside(arm)
    axes.text(1.012, row - (0.16 if remark else 0), number, ha="left", size=9, color=INK, **words)
    axes.text(1.012, row + 0.2, remark, ha="left", size=7.5, color=FAINT, **words)


def _beside(arm: ArmResult) -> tuple[str, str]:
    half = ci95(arm)
    interval = "" if half is None else f" ± {100 * half:.2f}"
    number = "" if arm.mean is None else f"{100 * arm.mean:.2f}{interval} %"
    if arm.same_as is not None:
        return number, f"the trials of {arm.same_as}"
    if arm.source is not None:
        return number, _shortened(f"given: {arm.source}", 34)
    if arm.diverged:
        return number, f"{arm.diverged} of {len(arm.accuracies)} diverged"
    return number, f"n = {arm.n}" if arm.n else ""


def _style(axes: Axes, rows: Sequence[ArmResult]) -> None:
    axes.set_xlim(*_limits(rows))
    style_axis(axes, len(rows))
    axes.xaxis.set_major_formatter("{x:g} %")


def style_axis(axes: Axes, rows: int) -> None:
    """Make a plot of `rows` rows, the first on top: faint lines, every other row on a band."""
    axes.set_ylim(max(1, rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=FAINT, labelsize=8, length=0, pad=6)
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    for row in range(0, rows, 2):
        axes.axhspan(row - 0.5, row + 0.5, xmin=0, xmax=1, color=_BAND, zorder=0, linewidth=0)


def _limits(rows: Sequence[ArmResult]) -> tuple[float, float]:
    """Return the percent axis: all that is drawn with some room, never outside 0..100."""
    drawn: list[float] = []
    for arm in rows:
        drawn += [100 * accuracy for accuracy in arm.accuracies if accuracy is not None]
        if arm.mean is not None:
            half = ci95(arm) or 0.0
            drawn += [100 * (arm.mean - half), 100 * (arm.mean + half)]
    if not drawn:
        return 0.0, 100.0
    room = max(1.0, 0.06 * (max(drawn) - min(drawn)))
    # Half a point beyond the ends keeps a marker at 0 or 100 whole.
    return max(-0.5, min(drawn) - room), min(100.5, max(drawn) + room)


def _score_line(name: str, score: ScoreResult) -> tuple[str, str]:
    words = SCORES[name]
    if score.mean is None:
        return words.title, _shortened(f"undefined: {score.reason or 'no repeat gave a value'}", 130)
    half = "" if score.ci95 is None else f" ± {words.number(score.ci95)}"
    value = f"{words.number(score.mean)}{half} {words.unit}".rstrip()
    return words.title, f"{value}   ({words.better} is better: {words.meaning})"


def distilled_title(counts: NDArray[np.integer[Any]]) -> str:
    """Return the title of a picture of so many images per class, saying what it leaves out."""
    least, most = int(counts.min()), int(counts.max())
    classes = f"first {MAX_CLASSES} of " if len(counts) > MAX_CLASSES else ""
    images = f"first {MAX_IMAGES} of " if most > MAX_IMAGES else ""
    per_class = f"{most}" if least == most else f"{least} to {most}"
    noun = "image" if most == 1 else "images"
    return f"Distilled images: {classes}{len(counts)} classes, {images}{per_class} {noun} each"


def tile(image_unit: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return an image [C, H, W] as it is drawn: uint8 [H', W', 3], each pixel a square of pixels."""
    import numpy as np

    step, scale = _step_and_scale(*image_unit.shape[1:])
    channels = image_unit if image_unit.shape[0] == 3 else image_unit.mean(axis=0, keepdims=True)
    small = np.nan_to_num(np.clip(channels[:, ::step, ::step], 0, 1))
    pixels = np.rint(255 * small).astype(np.uint8).transpose(1, 2, 0)
    rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return rgb.repeat(scale, axis=0).repeat(scale, axis=1)


def _step_and_scale(height: int, width: int) -> tuple[int, int]:
    """Return (take every so many pixels, draw each so large): one of the two is 1."""
    side = max(height, width)
    return max(1, -(-side // _LARGEST_TILE)), max(1, _TILE // side)


def _shortened(text: str, most: int = 20) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def write_text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Write one line, centred on `y`, at a place in pixels from the lower left corner."""
    width, height = figure.get_size_inches() * _DPI
    style = {"size": 9, "color": INK, "va": "center", **style}
    # Without parse_math a class called "$5" would be taken for a formula.
    figure.text(x / width, y / height, text, parse_math=False, **style)


@contextmanager
def figure_of(width: int, height: int, path: Path) -> Iterator[Figure]:
    """Give an empty figure of `width` x `height` pixels, and save it at the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A matplotlibrc of the user must not change the picture.
        matplotlib.rcdefaults()
        # A class name in a script that the font lacks is drawn as boxes: no reason to warn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        # No software line: the picture's bytes depend on what is drawn alone.
        figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})
