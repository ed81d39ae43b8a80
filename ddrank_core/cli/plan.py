"""`ddrank plan`: what a run will train, and what it takes, before anything is spent."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ddrank_core.asked import Asked
from ddrank_core.cli.bench import busy, counter, load_before
from ddrank_core.cli.json_file import check_output, json_option, write
from ddrank_core.cli.options import asked_for, device_option, overrides_option, trials_options
from ddrank_core.cli.text import clean, table

Row = tuple[str, ...]
"""Cells of a table."""

if TYPE_CHECKING:
    from ddrank_core.engine.bench.forecast import Forecast, Left
    from ddrank_core.engine.bench.laps import Spread
    from ddrank_core.engine.bench.outlook import Outlook

    Found = tuple[Outlook, Forecast | None]
    """A student's part of the run; nothing is expected of it where nothing was measured."""


@click.command("plan")
@click.argument("config", type=click.Path(path_type=Path))
@overrides_option
@device_option
@trials_options
@click.option("--no-measure", is_flag=True, help="Do no training step, and say nothing about time.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    config: Path,
    overrides: tuple[str, ...],
    device: str,
    workers: int | None,
    cohort: int | None,
    compile: str,
    no_measure: bool,
    output: Path | None,
) -> None:
    """Say what `ddrank run CONFIG` will train, what is stored already, and what the rest takes.

    Time is measured by a few steps of each training that is left, and given as the median with the quartiles
    in brackets; the machine should have nothing else to do. No result is kept.
    """
    check_output(output)
    asked, load = asked_for(workers, cohort, compile), None if no_measure else load_before()
    found = _found(config, overrides, device, asked, no_measure)
    again = _run_command(ctx)
    click.echo(text(found, again, load))
    if output is not None:
        write(output, record(config, found, again))


def _found(
    config: Path, overrides: tuple[str, ...], device: str, asked: Asked, no_measure: bool
) -> list[Found]:
    from ddrank_core.cli.problems import warn
    from ddrank_core.config import load_run
    from ddrank_core.registry import default_registry

    registry = default_registry()
    warn(registry.problems)
    settings = load_run(config, registry, overrides)
    # From here on torch is needed, which costs seconds to import.
    from ddrank_core.engine.bench.outlook import look
    from ddrank_core.engine.device import resolve
    from ddrank_core.engine.prepare import prepare

    place, real, outlooks = resolve(device), None, []
    for index, single in enumerate(settings.each_student()):
        named = f"{config}: students[{index}]" if settings.students else str(config)
        prepared = prepare(single, named, registry, place, real)
        real = prepared.real
        outlooks.append(look(prepared, asked))
    return [(outlook, None) for outlook in outlooks] if no_measure else _measured(outlooks, asked)


def _measured(outlooks: Sequence[Outlook], asked: Asked) -> list[Found]:
    from ddrank_core.cli.progress import progress
    from ddrank_core.engine.bench import pace
    from ddrank_core.engine.bench.outlook import expected, measurements

    total = sum(measurements(outlook) for outlook in outlooks)
    with progress("measuring", "measurements") as report:
        done = counter(report, total)
        return [expected(outlook, asked, done, pace.BUDGET) for outlook in outlooks]


def _run_command(ctx: click.Context) -> list[str]:
    """Return the command that does what was planned: the same, but for what only a plan has."""
    assert ctx.parent is not None  # the launcher
    own = {"no_measure", "output"}
    return ["ddrank", *_given(ctx.parent, ()), "run", *_given(ctx, own)]


def _given(ctx: click.Context, without: set[str] | tuple[()]) -> list[str]:
    """Return the parameters of a command that differ from their defaults, as words of a command line."""
    words: list[str] = []
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if parameter.name in without or value is None or value == parameter.get_default(ctx):
            continue
        if isinstance(parameter, click.Argument):
            words.append(str(value))
            continue
        several = value if parameter.multiple else (value,)
        words += [word for one in several for word in (parameter.opts[0], str(one))]
    return words


# -- what a person reads -----------------------------------------------------------------------


def text(found: Sequence[Found], again: Sequence[str], load: float | None) -> str:
    """Return the plans of all students, what they come to, and the command that follows them.

    `load` is what the machine had to do before, where time was measured.
    """
    parts = [_text(outlook, forecast) for outlook, forecast in found]
    if len(found) > 1:
        parts.append(_total(found))
    left = sum(outlook.missing for outlook, _ in found)
    parts += busy(load) if left else []
    parts.append(f"{'run it' if left else 'nothing to train; the scores again'}: {shlex.join(again)}")
    return "\n\n".join(parts)


def _text(outlook: Outlook, forecast: Forecast | None) -> str:
    config = outlook.prepared.config
    plan = outlook.prepared.plan
    repeats = f"{plan.repeats} repeat{'' if plan.repeats == 1 else 's'}"
    title = (
        f"{config.name}: {config.student.use} on {config.dataset.use}, protocol {config.protocol.use}, "
        f"{repeats}, {config.precision}, on {outlook.device}"
    )
    rows = [*_teacher_rows(outlook, forecast), *_arm_rows(outlook, forecast), _sum(outlook, forecast)]
    shown = [_HEADER, *rows] if forecast is not None else [row[:-1] for row in (_HEADER, *rows)]
    return "\n".join([clean(title), "", table(shown), "", *_needs(outlook, measured=forecast is not None)])


_HEADER = ("training", "trials", "stored", "left", "epochs", "images", "time left")


def _teacher_rows(outlook: Outlook, forecast: Forecast | None) -> list[Row]:
    prepared = outlook.prepared
    rows: list[Row] = []
    for index, there in enumerate(outlook.teachers):
        name = f"teacher {index + 1}, {prepared.config.teachers[index].network.use}"
        what = ("", "there", "", "", "")
        if there is None and prepared.teacher_training is not None:
            images = len(prepared.real.train_labels)
            what = ("", "", "to train", f"{prepared.teacher_training.epochs:,}", f"{images:,}")
        seconds = forecast.teachers[index] if forecast is not None and forecast.teachers else None
        rows.append((name, *what, _time(seconds)))
    return rows


def _arm_rows(outlook: Outlook, forecast: Forecast | None) -> list[Row]:
    by_arm = {left.arm.name: left for left in outlook.left}
    rows: list[Row] = []
    for arm in outlook.prepared.plan.arms:
        if arm.same_as is not None:
            rows.append((f"{arm.name} = {arm.same_as}", "", "", "", "", "", ""))
            continue
        left = by_arm[arm.name]
        rows.append(
            (
                arm.name,
                f"{left.planned:,}",
                f"{left.planned - left.missing:,}",
                f"{left.missing:,}",
                f"{arm.training.epochs:,}",
                f"{outlook.trainer.images_of(arm):,}",
                _time(_seconds(left, forecast)),
            )
        )
    return rows


def _sum(outlook: Outlook, forecast: Forecast | None) -> Row:
    stored = outlook.planned - outlook.missing
    seconds = forecast.seconds if forecast is not None and outlook.missing else None
    return "all", f"{outlook.planned:,}", f"{stored:,}", f"{outlook.missing:,}", "", "", _time(seconds)


def _seconds(left: Left, forecast: Forecast | None) -> Spread | None:
    if forecast is None or not left.missing:
        return None
    (found,) = (arm for arm in forecast.arms if arm.arm == left.arm.name)
    return found.seconds


def _needs(outlook: Outlook, measured: bool) -> list[str]:
    """Return what the run takes of memory and disk."""
    from ddrank_core.store import cache_folder

    each, many, folder = outlook.memory, outlook.at_once, cache_folder()
    how = "in a cohort" if outlook.cohort > 1 else "at once"
    most = "up to " if outlook.cohort > 1 and not measured else ""
    free = "" if outlook.free_bytes is None else f", of {_size(outlook.free_bytes)} that are free"
    return [
        f"memory: a trial takes about {_size(each.all_bytes)}: weights and optimiser "
        f"{_size(each.weight_bytes)}, activations of a step {_size(each.activation_bytes)}",
        f"        {most}{many} trial{'' if many == 1 else 's'} {how}: {_size(many * each.all_bytes)}{free}; "
        f"the images take {_size(outlook.data_bytes)} besides",
        f"disk:   about {_size(outlook.disk_bytes)} in {clean(str(folder))}, "
        f"of {_size(_room(folder))} that are free",
    ]


def _room(folder: Path) -> int:
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def _total(found: Sequence[Found]) -> str:
    planned, left = (
        sum(outlook.planned for outlook, _ in found),
        sum(outlook.missing for outlook, _ in found),
    )
    seconds = _all_seconds(found)
    time = "" if seconds is None or not left else f", {_time(seconds)}"
    return f"all {len(found)} students: {planned:,} trials, {planned - left:,} stored, {left:,} left{time}"


def _all_seconds(found: Sequence[Found]) -> Spread | None:
    from ddrank_core.engine.bench.laps import summed

    forecasts = [forecast for _, forecast in found if forecast is not None]
    return summed([forecast.seconds for forecast in forecasts]) if len(forecasts) == len(found) else None


_UNITS = ((86400.0, 2.0, "days"), (3600.0, 1.5, "h"), (60.0, 1.5, "min"), (1.0, 0.0, "s"))
"""Seconds of a unit, from how many of them on it is used, and its name."""


def _time(seconds: Spread | None) -> str:
    return "" if seconds is None else about(seconds)


def about(seconds: Spread) -> str:
    """Return an expected time in words, the likely range in brackets.

    >>> from ddrank_core.engine.bench.laps import Spread
    >>> about(Spread(720.0, 660.0, 840.0)), about(Spread(8.24, 8.21, 9.9)), about(Spread(9000.0, 9e3, 9e3))
    ('about 12 min (11 to 14)', 'about 8.2 s (8.2 to 9.9)', 'about 2.5 h')
    """
    size, _, unit = next(one for one in _UNITS if seconds.median >= one[0] * one[1])
    middle, low, high = (_digits(value / size) for value in (seconds.median, seconds.low, seconds.high))
    return f"about {middle} {unit}" + ("" if low == high else f" ({low} to {high})")


def _digits(value: float) -> str:
    """Return a number with two digits, or whole where it has more."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"


def _size(count: int) -> str:
    units = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
    found = ((count / unit, name) for unit, name in units if count >= unit)
    number, unit = next(found, (count, "bytes"))
    return f"{_digits(number)} {unit}"


# -- what a program reads ----------------------------------------------------------------------


def record(config: Path, found: Sequence[Found], again: Sequence[str]) -> dict[str, Any]:
    """Return the plan as plain JSON values; times in seconds, null where nothing was measured."""
    from ddrank_core.cli.versions import versions

    return {
        "versions": versions(),
        "config": str(config),
        "runs": [_record(outlook, forecast) for outlook, forecast in found],
        "trials": sum(outlook.planned for outlook, _ in found),
        "left": sum(outlook.missing for outlook, _ in found),
        "seconds": _spread(_all_seconds(found)),
        "command": list(again),
    }


def _record(outlook: Outlook, forecast: Forecast | None) -> dict[str, Any]:
    config, by_arm = outlook.prepared.config, {left.arm.name: left for left in outlook.left}
    return {
        "name": config.name,
        "student": config.student.use,
        "device": outlook.device,
        "precision": config.precision,
        "arms": [
            {"arm": arm.name, "same_as": arm.same_as}
            | ({} if arm.same_as else _arm_record(outlook, by_arm[arm.name], forecast))
            for arm in outlook.prepared.plan.arms
        ],
        "teachers": [
            {
                "use": config.teachers[index].network.use,
                "trained": there is not None,
                "seconds": _spread(forecast.teachers[index] if forecast and forecast.teachers else None),
            }
            for index, there in enumerate(outlook.teachers)
        ],
        "trials": outlook.planned,
        "left": outlook.missing,
        "seconds": _spread(None if forecast is None else forecast.seconds),
        "memory": {
            "trial": attrs.asdict(outlook.memory),
            "at_once": outlook.at_once,
            "cohort": outlook.cohort,
            "free_bytes": outlook.free_bytes,
            "data_bytes": outlook.data_bytes,
        },
        "disk_bytes": outlook.disk_bytes,
    }


def _arm_record(outlook: Outlook, left: Left, forecast: Forecast | None) -> dict[str, Any]:
    return {
        "trials": left.planned,
        "stored": left.planned - left.missing,
        "left": left.missing,
        "epochs": left.arm.training.epochs,
        "images": outlook.trainer.images_of(left.arm),
        "seconds": _spread(_seconds(left, forecast)),
    }


def _spread(seconds: Spread | None) -> dict[str, float] | None:
    return None if seconds is None else attrs.asdict(seconds)
