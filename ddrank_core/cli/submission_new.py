"""`ddrank submission new`: start a submission from a finished run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import click

from ddrank_core.cli.text import clean
from ddrank_core.errors import ConfigError


@click.command("new")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "run",
    type=click.Path(path_type=Path),
    required=True,
    metavar="RUN_FOLDER",
    help="A finished run, as 'ddrank run' left it.",
)
@click.option("--method", help="The method's name, as the table shows it.")
@click.option("--author", "authors", multiple=True, help="An author; may stand more than once.")
@click.option("--licence", help="SPDX identifier of the distilled set's licence, or its source's words.")
@click.option("--saw", multiple=True, help="What the method saw of the real data; may stand more than once.")
@click.option("--paper", help="Address of the paper.")
@click.option("--code", help="Address of the code.")
@click.option("--teacher", help="The teacher of its soft labels, in words.")
@click.option("--gpu-hours", type=click.FloatRange(min=0), help="What the distillation took.")
@click.option("--gpu", help="On which device.")
@click.option("--claimed", type=click.FloatRange(0, 1), help="A published accuracy, a fraction.")
@click.option("--source", help="Where that accuracy stands: the paper and its table.")
@click.option("--url", help="Pin the distilled set: it lies at this address, and not in the repository.")
@click.option("--made-with", help="How it is made from what lies there: 'ddrank import ...'.")
def command(folder: Path, run: Path, url: str | None, made_with: str | None, **given: Any) -> None:
    """Start a submission in FOLDER, METHOD/DATASET-ipcN, from a finished run.

    Takes the recipe and the distilled set from the run, and asks for what no option says. Your own arrays or
    pictures are a data set that FOLDER names.
    """
    from ddrank_core.cli.problems import warn
    from ddrank_core.leaderboard.start import Pinned, check_folder, read_run, write_submission
    from ddrank_core.registry import default_registry

    if made_with is not None and url is None:
        raise ConfigError("--made-with: goes with --url, the address of what it is made from")
    registry = default_registry()
    warn(registry.problems)
    finished = read_run(run, registry)
    check_folder(folder, finished)
    said = _asked(given, folder.resolve().parent.name, finished.teachers)
    pinned = None if url is None else Pinned(url=url, made_with=made_with)
    write_submission(folder, finished, said, registry, pinned)
    for name, path in finished.files().items():
        click.echo(clean(f"copied {path} as {name}"))
    click.echo(f"wrote {folder}: look through submission.yaml and run.yaml, then")
    click.echo(f"  ddrank submission check {folder}")
    click.echo(f"  ddrank submission evaluate {folder}")


def _asked(given: dict[str, Any], method: str, teachers: str | None) -> dict[str, Any]:
    """Return the author's part of submission.yaml: from the options, and asked for where they say nothing."""
    said: dict[str, Any] = {
        "method": given["method"] or _ask("Method", "--method", method),
        "authors": list(given["authors"]) or _listed(_ask("Authors, with ';' between", "--author")),
        "licence": given["licence"] or _ask("Licence of the distilled set (SPDX identifier)", "--licence"),
        "saw": _saw(given["saw"]),
        "paper": given["paper"] or _ask("Address of the paper", "--paper", "") or None,
        "code": given["code"] or _ask("Address of the code", "--code", "") or None,
    }
    if teachers is not None:
        said["teacher"] = given["teacher"] or _ask("Teacher of the soft labels", "--teacher", teachers)
    said["cost"] = _cost(given)
    said["claimed"] = _claimed(given)
    return said


def _saw(given: tuple[str, ...]) -> list[str]:
    from ddrank_core.leaderboard.types import Saw

    known = get_args(Saw)
    default = "train images; train labels"
    saw = list(given) or _listed(
        _ask(f"What the method saw ({', '.join(known)}), with ';' between", "--saw", default)
    )
    for one in saw:
        if one not in known:
            raise ConfigError(f"--saw: '{one}' is not one of {', '.join(known)}")
    return saw


def _cost(given: dict[str, Any]) -> dict[str, Any] | None:
    hours = given["gpu_hours"]
    if hours is None:
        hours = _number(
            _ask("GPU hours that the distillation took, if known", "--gpu-hours", ""), "--gpu-hours"
        )
    if hours is None:
        return None
    return {"gpu_hours": hours, "device": given["gpu"] or _ask("On which device", "--gpu")}


def _claimed(given: dict[str, Any]) -> list[dict[str, Any]] | None:
    accuracy = given["claimed"]
    if accuracy is None:
        accuracy = _number(_ask("Published accuracy, a fraction, if any", "--claimed", ""), "--claimed", 1)
    if accuracy is None:
        return None
    return [{"accuracy": accuracy, "source": given["source"] or _ask("Where it is published", "--source")}]


def _number(text: str, option: str, most: float = float("inf")) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError as error:
        raise ConfigError(f"{option}: '{text}' is not a number") from error
    if number is not None and not (0 <= number <= most and number < float("inf")):
        raise ConfigError(f"{option}: must be from 0 to {most:g}, got {text}")
    return number


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _ask(text: str, option: str, default: str | None = None) -> str:
    """Ask on the terminal; where nobody is there to answer, take the default.

    Raises:
        ConfigError: if there is neither an answer nor a default.
    """
    try:
        answer: str = click.prompt(text, default=default, show_default=bool(default), err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        if default is None:
            raise ConfigError(f"{option}: missing, and there is no terminal to ask at; give it") from None
        return default
    return answer
