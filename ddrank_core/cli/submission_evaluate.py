"""`ddrank submission evaluate`: train and score a submission and its controls, and keep their records."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

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
from ddrank_core.cli.options import asked_for, device_option, overrides_option, trials_options
from ddrank_core.cli.sinks import Sinks

if TYPE_CHECKING:
    from ddrank_core.leaderboard.evaluate import Contestant, Evaluation
    from ddrank_core.leaderboard.types import Track
    from ddrank_core.report.record import RunReport


@click.command("evaluate")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--track",
    type=click.Choice(["own", "fixed", "all"]),
    default="all",
    show_default=True,
    help="The submission's own recipe, the data set's fixed one, or both.",
)
@click.option(
    "--variant",
    metavar="AXIS-NAME",
    help="Instead: the same set with one thing changed by --set; AXIS is augmentation, labels or student.",
)
@overrides_option
@device_option
@trials_options
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    folder: Path,
    track: str,
    variant: str | None,
    overrides: tuple[str, ...],
    device: str,
    workers: int | None,
    cohort: int | None,
    compile: str,
    quiet: bool,
) -> None:
    """Evaluate the submission in FOLDER and its controls: noise, and real images chosen in three ways.

    All of them are trained under the same recipes and teachers. Each leaves its record in
    FOLDER/results/TRACK/CONTESTANT. Finished trials are kept: the same command after an interruption goes
    on where it stopped. Nothing that is in FOLDER is ever executed.

    A variant shows what one part of the own recipe does, in a table of its own:

    \b
    ddrank submission evaluate FOLDER --variant augmentation-none --set recipe.augmentation=none
    """
    if (variant is None) != (not overrides):
        raise click.UsageError(
            "--variant says what the variant is called, and --set what it changes: give both."
        )
    if variant is not None and track == "fixed":
        raise click.UsageError("--track fixed: a variant is of the method's own recipe; leave --track out.")
    from ddrank_core.cli.problems import warn
    from ddrank_core.leaderboard.submission import load
    from ddrank_core.leaderboard.types import TRACKS
    from ddrank_core.registry import default_registry

    asked = asked_for(workers, cohort, compile)
    registry = default_registry()
    warn(registry.problems)
    submission = load(folder)
    if quiet:
        registry.host.without("progress")
    end_on_sigterm()
    from ddrank_core.leaderboard.variants import named

    called = None if variant is None else named(variant)
    # From here on torch is needed, which costs seconds to import.
    from ddrank_core.engine.device import resolve
    from ddrank_core.leaderboard.evaluate import Changes, Evaluation

    changes = None if called is None else Changes(variant=called, overrides=overrides)

    tracks: tuple[Track, ...] = TRACKS if track == "all" else (track,)  # type: ignore[assignment]
    evaluation = Evaluation(submission, tracks, registry, resolve(device), changes)
    how = How(asked=asked, make=None, registry=registry, sinks=Sinks(()))
    alone = [one for one in tracks if not (changes or evaluation.has_controls(one))]
    warn(
        f"{submission.recipe}: recipe.labels replays views of the method's images: no controls on track {one}"
        for one in alone
    )
    reports = _evaluate_all(evaluation, how, quiet)
    click.echo(_table(evaluation.contestants, reports), nl=False)
    click.echo(f"\nrecords: {submission.folder / 'results'}")
    say_failed(reports)


def _evaluate_all(evaluation: Evaluation, how: How, quiet: bool) -> list[RunReport]:
    reports = []
    for number, contestant in enumerate(evaluation.contestants, 1):
        if not quiet:
            many = len(evaluation.contestants)
            click.echo(f"{number} of {many}: {contestant.name}, {contestant.track} recipe", err=True)
        reports.append(_evaluate(evaluation, contestant, how))
    return reports


def _evaluate(evaluation: Evaluation, contestant: Contestant, how: How) -> RunReport:
    from ddrank_core.events import RunFinished
    from ddrank_core.leaderboard.controls import hearing

    prepared = evaluation.prepare(contestant)
    emit, clock = Emitter(how), time.perf_counter()
    try:
        here = hearing(evaluation.hears(contestant))
        outcome = executed(prepared, how, emit, contestant.folder, here)
        report = report_of(outcome, prepared.config)
        evaluation.write(report, contestant)
    except BaseException as error:
        emit.failed(prepared.config.name, error, time.perf_counter() - clock)
        if (asked := asked_to_end(error)) is not None:
            raise interrupted(asked, emit) from None
        raise
    finished = RunFinished(
        name=prepared.config.name,
        folder=contestant.folder,
        scores=outcome.scores,
        arms=outcome.arms,
        seconds=time.perf_counter() - clock,
    )
    emit("ddrank_run_finished", finished)
    return report


def _table(contestants: Sequence[Contestant], reports: Sequence[RunReport]) -> str:
    from ddrank_core.config import SCORES
    from ddrank_core.report.arms import SCORES as WORDS
    from ddrank_core.report.console import encodable, table

    asked = [name for name in SCORES if any(name in report.config.scores for report in reports)]
    header = ("track", "contestant", *(WORDS[name].title for name in asked), "trials")
    rows = [
        (
            contestant.track,
            contestant.name,
            *(_score(report, name) for name in asked),
            f"{len(report.trials)}, {sum(trial.reused for trial in report.trials)} read back",
        )
        for contestant, report in zip(contestants, reports, strict=True)
    ]
    return encodable("\n".join(table(header, rows)) + "\n", sys.stdout.encoding or "utf-8")


def _score(report: RunReport, name: str) -> str:
    from ddrank_core.report.arms import SCORES as WORDS

    if name not in report.config.scores:
        return "-"
    score, words = report.scores[name], WORDS[name]
    if score.mean is None:
        return "undefined"
    value = words.number(score.mean)
    return value if score.ci95 is None else f"{value} ± {words.number(score.ci95)}"
