"""`ddrank run`: one evaluation of one distilled set, from a config to scores."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddrank_core.asked import Asked
from ddrank_core.cli.evaluation import (
    Emitter,
    How,
    asked_to_end,
    end_on_sigterm,
    executed,
    interrupted,
    report_of,
    say_failed,
)
from ddrank_core.cli.options import (
    asked_for,
    device_option,
    executor_options,
    overrides_option,
    trials_options,
)
from ddrank_core.cli.sinks import open_sinks, sinks_option
from ddrank_core.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from ddrank_core.config import RunConfig
    from ddrank_core.engine.prepared import Prepared
    from ddrank_core.engine.run import MakeExecutor
    from ddrank_core.registry import Registry
    from ddrank_core.report.record import RunReport


@click.command("run")
@click.argument("config", type=click.Path(path_type=Path))
@overrides_option
@device_option
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME-DIGEST]")
@executor_options
@trials_options
@sinks_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    config: Path,
    overrides: tuple[str, ...],
    device: str,
    out: Path | None,
    executor: str,
    address: str | None,
    workers: int | None,
    cohort: int | None,
    compile: str,
    sinks: tuple[str, ...],
    quiet: bool,
) -> None:
    """Evaluate the distilled set of CONFIG, and leave a run folder with its record.

    A config with several students leaves a run folder for each of them inside, and a table and a picture
    that compare them. Trials that are finished are kept: the same command after an interruption goes on
    where it stopped.
    """
    from ddrank_core.cli.problems import warn
    from ddrank_core.config import load_run
    from ddrank_core.registry import default_registry

    if address is not None and executor != "ray":
        raise ConfigError("--address: only --executor ray has one")
    asked = asked_for(workers, cohort, compile)
    registry = default_registry()
    warn(registry.problems)
    settings = load_run(config, registry, overrides)
    if quiet:
        registry.host.without("progress")
    folder = out or Path("runs") / f"{settings.name}-{settings.digest()[:8]}"
    opened = open_sinks(sinks, registry)
    # From here on torch is needed, which costs seconds to import.
    from ddrank_core.engine.device import resolve
    from ddrank_core.report import folder as run_folder

    make = None if executor == "local" else _on_ray(address, asked, device)
    # On a cluster this process trains nothing, and leaves the GPUs to the workers.
    here = resolve(device if make is None else "cpu")
    prepared = _prepared(settings, str(config), registry, here, elsewhere=make is not None)
    run_folder.prepare(folder, settings)
    # Not before: torch swallows an exception that comes while it is imported, and nothing is lost yet.
    end_on_sigterm()
    how = How(asked=asked, make=make, registry=registry, sinks=opened)
    if not settings.students:
        report = _evaluate(prepared[0], how, folder)
        click.echo(f"\nrecord and pictures: {folder}")
        say_failed([report])
        return
    _evaluate_students(prepared, settings, how, folder)


def _prepared(
    settings: RunConfig, where: str, registry: Registry, device: torch.device, elsewhere: bool
) -> tuple[Prepared, ...]:
    """Prepare the run of every student before the first is trained; the data set is loaded once."""
    from ddrank_core.engine.prepare import prepare
    from ddrank_core.report.students import as_single

    if not settings.students:
        return (prepare(settings, where, registry, device, elsewhere=elsewhere),)
    real, prepared = None, []
    for index in range(len(settings.students)):
        named = f"{where}: students[{index}]"
        prepared.append(prepare(as_single(settings, index), named, registry, device, real, elsewhere))
        real = prepared[0].real
    return tuple(prepared)


def _evaluate_students(prepared: tuple[Prepared, ...], settings: RunConfig, how: How, folder: Path) -> None:
    from ddrank_core.report import folder as run_folder
    from ddrank_core.report.students import folder_name, students_summary, write_students

    reports = []
    for index, one in enumerate(prepared):
        own = folder / folder_name(index, one.config.student)
        run_folder.prepare(own, one.config)
        reports.append(_evaluate(one, how, own))
        click.echo()
    write_students(settings, reports, folder)
    click.echo(students_summary(settings.name, reports, sys.stdout.encoding or "utf-8"), nl=False)
    click.echo(f"\nrecords and pictures: {folder}")
    say_failed(reports)


def _evaluate(prepared: Prepared, how: How, folder: Path) -> RunReport:
    from ddrank_core.events import RunFinished
    from ddrank_core.report.console import summary
    from ddrank_core.report.folder import discard

    settings, clock = prepared.config, time.perf_counter()
    emit = Emitter(how)
    try:
        outcome = executed(prepared, how, emit, folder)
        report = report_of(outcome, settings)
        written = _write(report, prepared, folder)
    except BaseException as error:
        emit.failed(settings.name, error, time.perf_counter() - clock)
        discard(folder)
        if (asked := asked_to_end(error)) is not None:
            raise interrupted(asked, emit) from None
        raise
    finished = RunFinished(
        name=settings.name,
        folder=folder,
        scores=outcome.scores,
        arms=outcome.arms,
        seconds=time.perf_counter() - clock,
    )
    emit("ddrank_run_finished", finished)
    click.echo(summary(report, sys.stdout.encoding or "utf-8"), nl=False)
    if not written:
        click.echo("\nnothing was left to train: the record is the one that was there")
    return report


def _on_ray(address: str | None, asked: Asked, device: str) -> MakeExecutor:
    from ddrank_core.engine.executors.ray import on_ray

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"--device {device}: a Ray cluster gives out its GPUs itself; use auto, cpu or cuda"
        )
    return on_ray(address, asked.workers, device)  # type: ignore[arg-type]


def _write(report: RunReport, prepared: Prepared, folder: Path) -> bool:
    """Write the run folder; return whether there was anything new to write."""
    from ddrank_core.engine.prepared import unit_images
    from ddrank_core.report.folder import is_there, write

    if is_there(report, folder):
        return False
    images, labels = unit_images(prepared).numpy(), prepared.distilled.labels.numpy()
    write(report, images, labels, prepared.real.class_names, folder)
    return True
