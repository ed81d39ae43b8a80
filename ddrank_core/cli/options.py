"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ddrank_core.asked import Asked
from ddrank_core.errors import ConfigError

overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="FIELD=VALUE", help="Override a field: recipe.epochs=50."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:0, cuda:1, ..."
)

_OF_EXECUTOR = (
    click.option(
        "--executor",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Where trials are trained: on this machine, or by the workers of a Ray cluster.",
    ),
    click.option(
        "--address",
        metavar="HOST:PORT",
        help="The Ray cluster to use, or auto.  [default: one that is started on this machine]",
    ),
)

_OF_TRIALS = (
    click.option(
        "--workers",
        type=click.IntRange(1, 1024),
        help="Trials trained at once on a CPU.  [default: as many as there are cores]",
    ),
    click.option(
        "--cohort",
        type=click.IntRange(1, 1024),
        help="Trials trained at once as one computation.  [default: as many as fit on a GPU, 1 on a CPU]",
    ),
    click.option(
        "--compile",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Compile networks on a CPU, capture graphs on a GPU; auto where it pays.",
    ),
)


def trials_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how trials are trained: `workers`, `cohort` and `compile`."""
    for option in reversed(_OF_TRIALS):
        command = option(command)
    return command


def executor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where trials are trained: `executor` and `address`."""
    for option in reversed(_OF_EXECUTOR):
        command = option(command)
    return command


def asked_for(workers: int | None, cohort: int | None, compile: str) -> Asked:
    """Return what those options say.

    Raises:
        ConfigError: if two of them exclude each other.
    """
    if cohort is not None and (workers or 1) > 1:
        raise ConfigError("--cohort: trials are trained at once in one process; leave out --workers")
    if cohort is not None and cohort > 1 and compile == "on":
        raise ConfigError("--compile on: what trains in a cohort is not compiled; leave out --cohort")
    return Asked(workers=1 if cohort else workers, cohort=cohort, compile=compile)  # type: ignore[arg-type]
