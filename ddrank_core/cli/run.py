"""`ddrank run`: one evaluation of one distilled set, from a config to scores."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddrank_core.asked import Asked
from ddrank_core.cli.options import asked_for, device_option, overrides_option, trials_options
from ddrank_core.errors import ConfigError, DDRankError, one_line

if TYPE_CHECKING:
    import torch

    from ddrank_core.config import RunConfig
    from ddrank_core.engine.prepared import Prepared
    from ddrank_core.engine.run import Emit, Outcome
    from ddrank_core.registry import Registry
    from ddrank_core.report.record import RunReport


class Interrupted(DDRankError):
    """Ctrl-C in the middle of a run."""

    exit_code = 130


@click.command("run")
@click.argument("config", type=click.Path(path_type=Path))
@overrides_option
@device_option
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME-DIGEST]")
@trials_options
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    config: Path,
    overrides: tuple[str, ...],
    device: str,
    out: Path | None,
    workers: int | None,
    cohort: int | None,
    compile: str,
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

    asked = asked_for(workers, cohort, compile)
    registry = default_registry()
    warn(registry.problems)
    settings = load_run(config, registry, overrides)
    if quiet:
        registry.host.without("progress")
    folder = out or Path("runs") / f"{settings.name}-{settings.digest()[:8]}"
    # From here on torch is needed, which costs seconds to import.
    from ddrank_core.engine.device import resolve
    from ddrank_core.report import folder as run_folder

    prepared = _prepared(settings, str(config), registry, resolve(device))
    run_folder.prepare(folder, settings)
    if not settings.students:
        _evaluate(prepared[0], registry, folder, asked)
        click.echo(f"\nrecord and pictures: {folder}")
        return
    _evaluate_students(prepared, settings, registry, folder, asked)


def _prepared(
    settings: RunConfig, where: str, registry: Registry, device: torch.device
) -> tuple[Prepared, ...]:
    """Prepare the run of every student before the first is trained; the data set is loaded once."""
    from ddrank_core.engine.prepare import prepare
    from ddrank_core.report.students import as_single

    if not settings.students:
        return (prepare(settings, where, registry, device),)
    real, prepared = None, []
    for index in range(len(settings.students)):
        named = f"{where}: students[{index}]"
        prepared.append(prepare(as_single(settings, index), named, registry, device, real))
        real = prepared[0].real
    return tuple(prepared)


def _evaluate_students(
    prepared: tuple[Prepared, ...],
    settings: RunConfig,
    registry: Registry,
    folder: Path,
    asked: Asked,
) -> None:
    from ddrank_core.report import folder as run_folder
    from ddrank_core.report.students import folder_name, students_summary, write_students

    reports = []
    for index, one in enumerate(prepared):
        own = folder / folder_name(index, one.config.student)
        run_folder.prepare(own, one.config)
        reports.append(_evaluate(one, registry, own, asked))
        click.echo()
    write_students(settings, reports, folder)
    click.echo(students_summary(settings.name, reports, sys.stdout.encoding or "utf-8"), nl=False)
    click.echo(f"\nrecords and pictures: {folder}")


def _evaluate(prepared: Prepared, registry: Registry, folder: Path, asked: Asked) -> RunReport:
    from ddrank_core.engine.run import execute
    from ddrank_core.engine.workers import count_workers
    from ddrank_core.events import RunFailed, RunFinished
    from ddrank_core.report.console import summary
    from ddrank_core.report.folder import discard
    from ddrank_core.store import TrialStore, cache_folder

    emit, settings = _emitter(registry), prepared.config
    clock = time.perf_counter()
    try:
        with closing(TrialStore(cache_folder())) as store:
            workers = count_workers(asked.workers, prepared.device, prepared.step_activations)
            if (asked.workers or 1) > workers:
                raise ConfigError(
                    f"--workers {asked.workers}: several processes train only on the CPU of a Linux "
                    "machine without a GPU; leave it out"
                )
            outcome = execute(prepared, store, emit, workers, asked.cohort, asked.compile)
        report = _report(outcome, settings)
        _write(report, prepared, folder)
    except BaseException as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else one_line(error)
        event = RunFailed(name=settings.name, error=why, seconds=time.perf_counter() - clock)
        emit("ddrank_run_failed", event)
        discard(folder)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted("interrupted; finished trials are kept, the same command goes on") from None
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
    return report


def _emitter(registry: Registry) -> Emit:
    from ddrank_core.cli.problems import warn

    def emit(hook: str, event: object) -> None:
        warn(str(fault) for fault in registry.host.notify(hook, event))

    return emit


def _report(outcome: Outcome, settings: RunConfig) -> RunReport:
    from ddrank_core.cli.versions import versions
    from ddrank_core.report import record

    return record.RunReport(
        config=settings,
        device=outcome.device,
        precision=settings.precision,
        scores=outcome.scores,
        arms=outcome.arms,
        trials=outcome.trials,
        protocol=outcome.protocol,
        components=record.components_of(settings),
        versions=versions(),
        data=outcome.data,
        teachers=outcome.teachers,
        notes=outcome.notes,
        started=outcome.started,
        seconds=outcome.seconds,
    )


def _write(report: RunReport, prepared: Prepared, folder: Path) -> None:
    from ddrank_core.engine.prepared import unit_images
    from ddrank_core.report.folder import write

    images, labels = unit_images(prepared).numpy(), prepared.distilled.labels.numpy()
    write(report, images, labels, prepared.real.class_names, folder)
