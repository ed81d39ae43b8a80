"""`ddrank bench`: how fast this device trains and tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ddrank_core.asked import Asked
from ddrank_core.cli.json_file import check_output, json_option, write
from ddrank_core.cli.options import asked_for, device_option, overrides_option, trials_options
from ddrank_core.cli.text import clean, table

if TYPE_CHECKING:
    from ddrank_core.engine.bench.arithmetic import Peak
    from ddrank_core.engine.bench.figures import Figures
    from ddrank_core.engine.bench.laps import Spread
    from ddrank_core.engine.bench.pace import Pace
    from ddrank_core.engine.prepared import Prepared


_BUSY = 0.5
"""The load from which other work shows in the figures."""


@click.command("bench")
@click.argument("config", type=click.Path(path_type=Path), required=False)
@overrides_option
@device_option
@trials_options
@json_option
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    device: str,
    workers: int | None,
    cohort: int | None,
    compile: str,
    output: Path | None,
) -> None:
    """Measure how fast the trials of CONFIG train and test here; `ddrank plan` says how long its run takes.

    Without CONFIG, a ConvNet-3 is trained on 1, 10 and 50 noise images per class, 3x32x32. The machine should
    have nothing else to do. No result is kept.
    """
    if config is None and overrides:
        raise click.UsageError("--set needs a CONFIG", click.get_current_context())
    check_output(output)
    load = load_before()
    asked = asked_for(workers, cohort, compile)
    found = _usual(device, asked) if config is None else _of_config(config, overrides, device, asked)
    click.echo(text(found, load))
    if output is not None:
        write(output, figures_record(found, load))


def load_before() -> float | None:
    """Return how many processes wanted to run in the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _usual(device: str, asked: Asked) -> list[Figures]:
    from ddrank_core.cli.problems import warn
    from ddrank_core.registry import default_registry

    registry = default_registry()
    warn(registry.problems)
    # From here on torch is needed, which costs seconds to import.
    from ddrank_core.engine.bench.synthetic import synthetic_runs
    from ddrank_core.engine.device import resolve

    with TemporaryDirectory(prefix="ddrank-bench-") as folder:
        return _measured(synthetic_runs(Path(folder), registry, resolve(device)), asked)


def _of_config(config: Path, overrides: tuple[str, ...], device: str, asked: Asked) -> list[Figures]:
    from ddrank_core.cli.problems import warn
    from ddrank_core.config import load_run
    from ddrank_core.registry import default_registry

    registry = default_registry()
    warn(registry.problems)
    settings = load_run(config, registry, overrides)
    from ddrank_core.engine.device import resolve
    from ddrank_core.engine.prepare import prepare

    place, real = resolve(device), None
    runs: list[tuple[Prepared]] = []
    for single in settings.each_student():
        runs.append((prepare(single, str(config), registry, place, real),))
        real = runs[0][0].real
    return _measured(runs, asked)


def _measured(groups: Sequence[Sequence[Prepared]], asked: Asked) -> list[Figures]:
    from ddrank_core.cli.progress import progress
    from ddrank_core.engine.bench import pace
    from ddrank_core.engine.bench.figures import measure, measurements

    total = sum(measurements(runs) for runs in groups)
    with progress("measuring", "measurements") as report:
        done = counter(report, total)
        return [measure(runs, asked, done, budget=pace.BUDGET) for runs in groups]


def counter(report: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """Return a function to be called as each of `total` pieces of work is done."""
    count = 0

    def done() -> None:
        nonlocal count
        count += 1
        report(count, total)

    return done


# -- what a person reads -----------------------------------------------------------------------


def text(found: Sequence[Figures], load: float | None) -> str:
    """Return all figures as text; `load` is what the machine had to do before."""
    parts = [_text(figures) for figures in found]
    parts += busy(load)
    parts.append(
        "Medians, and quartiles in brackets. Trials that train at once share an epoch's time: ms per\n"
        "trial-epoch is that time divided by their number, and the other columns are of all together.\n"
        "FLOPs are those of convolutions and matrix products, forward and backward."
    )
    return "\n\n".join(parts)


def busy(load: float | None) -> list[str]:
    """Return what to say of a machine that had other work to do; nothing of an idle one."""
    if load is None or load <= _BUSY:
        return []
    return [
        f"note: The machine was busy before (load {load:.1f}, {os.cpu_count()} cores); idle it is faster."
    ]


def _text(figures: Figures) -> str:
    peak, test = figures.peak, figures.test
    where = "" if peak.threads is None else f", {_cores(peak)}"
    gigaflops = _spread(peak.flops_per_second.times(1e-9))
    title = figures.network if figures.name is None else f"{figures.name}: {figures.network}"
    lines = [
        f"{clean(title)}, {'x'.join(map(str, figures.image_shape))}, {figures.num_classes} classes, "
        f"{figures.precision}, on {figures.device}",
        f"matmul peak: {gigaflops} GFLOP/s, {peak.side} x {peak.side}{where}",
        "",
        table([_HEADER, *(_row(pace, figures) for pace in figures.trainings)]),
        "",
        f"test: {_spread(test.images_per_second)} images/s, {test.workers} at once",
    ]
    lines += [
        f"{clean(pace.name)}: an epoch is timed by {pace.timed_images:,} of its {pace.images:,} images"
        for pace in figures.trainings
        if pace.timed_images < pace.images
    ]
    lines += [
        f"{clean(pace.name)}: its students are run {pace.execution}"
        for pace in figures.trainings
        if str(pace.execution) != "as it is"
    ]
    return "\n".join(lines)


def _cores(peak: Peak) -> str:
    threads = f"{peak.threads} thread{'s' if peak.threads != 1 else ''}"
    return threads if peak.workers == 1 else f"{peak.workers} processes of {threads}"


_HEADER = ("training", "images", "at once", "ms per trial-epoch", "images/s", "GFLOP/s", "of peak")


def _row(pace: Pace, figures: Figures) -> tuple[str, ...]:
    return (
        pace.name,
        f"{pace.images:,}",
        str(pace.at_once),
        _spread(pace.trial_epoch_seconds.times(1e3)),
        _spread(pace.images_per_second),
        _number(pace.flops_per_second.median * 1e-9),
        f"{100 * _share(pace, figures):.1f} %",
    )


def _share(pace: Pace, figures: Figures) -> float:
    return pace.flops_per_second.median / figures.peak.flops_per_second.median


def _spread(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.low)} to {_number(spread.high)})"


def _number(value: float) -> str:
    """Return a number to three digits, or whole where it has more.

    >>> _number(1234.5), _number(56.78), _number(0.012345)
    ('1,234', '56.8', '0.0123')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# -- what a program reads ----------------------------------------------------------------------


def figures_record(found: Sequence[Figures], load: float | None) -> dict[str, Any]:
    """Return all figures as plain JSON values; times in seconds, each with its quartiles."""
    from ddrank_core.cli.versions import versions

    return {"versions": versions(), "load_before": load, "runs": [_record(figures) for figures in found]}


def _record(figures: Figures) -> dict[str, Any]:
    import attrs

    # `attrs.asdict` takes nested classes along; what is derived comes on top.
    record = attrs.asdict(figures)
    for pace, entry in zip(figures.trainings, record["trainings"], strict=True):
        entry["trial_epoch_seconds"] = attrs.asdict(pace.trial_epoch_seconds)
        entry["images_per_second"] = attrs.asdict(pace.images_per_second)
        entry["flops_per_second"] = attrs.asdict(pace.flops_per_second)
        entry["share_of_peak"] = _share(pace, figures)
    record["test"]["images_per_second"] = attrs.asdict(figures.test.images_per_second)
    return record
