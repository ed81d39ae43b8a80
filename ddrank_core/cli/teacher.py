"""`ddrank teacher`: networks that give soft labels."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddrank_core.cli.options import device_option, overrides_option

if TYPE_CHECKING:
    from ddrank_core.config import TeacherConfig
    from ddrank_core.engine.teacher_training import Emit, KeptTeacher
    from ddrank_core.registry import Registry


@click.group("teacher")
def command() -> None:
    """Train networks that give soft labels."""


@command.command("train")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o", "output", type=click.Path(path_type=Path), help="The file.  [default: teachers/NAME.safetensors]"
)
@overrides_option
@device_option
@click.option(
    "--save-every", type=click.IntRange(min=1), metavar="N", help="Keep the weights of every Nth epoch too."
)
@click.option("--force", is_flag=True, help="Replace files that are not this training's.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def train(
    config: Path,
    output: Path | None,
    overrides: tuple[str, ...],
    device: str,
    save_every: int | None,
    force: bool,
    quiet: bool,
) -> None:
    """Train the network of CONFIG on its whole real training set, with hard labels, and test it.

    The weights go into one .safetensors file, which a run config names as a teacher's checkpoint. The same
    training is done once: it is kept in the cache, for runs too. One that is interrupted goes on from about
    a minute before.
    """
    from ddrank_core.cli.problems import warn
    from ddrank_core.config import load_teacher
    from ddrank_core.registry import default_registry

    registry = default_registry()
    warn(registry.problems)
    settings = load_teacher(config, registry, overrides)
    if quiet:
        registry.host.without("progress")
    path = output or Path("teachers") / f"{settings.name}.safetensors"
    _check_output(path)
    started = time.perf_counter()
    kept = _train(settings, str(config), registry, device, path, save_every, force)
    click.echo(_summary(kept, settings, path, time.perf_counter() - started))


def _check_output(path: Path) -> None:
    """Refuse before the work what could not be written after it."""
    from tempfile import TemporaryFile

    from ddrank_core.errors import ConfigError

    if path.suffix != ".safetensors":
        raise ConfigError(f"-o {path}: must end in .safetensors")
    if path.is_dir():
        raise ConfigError(f"-o {path}: is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot write in {path.parent}: {error.strerror}") from error


def _train(
    settings: TeacherConfig,
    where: str,
    registry: Registry,
    device: str,
    path: Path,
    save_every: int | None,
    force: bool,
) -> KeptTeacher:
    # From here on torch is needed, which costs seconds to import.
    from ddrank_core.cli.evaluation import Interrupted
    from ddrank_core.engine.device import resolve
    from ddrank_core.engine.teacher_training import train_teacher
    from ddrank_core.errors import one_line
    from ddrank_core.events import RunFailed, RunFinished

    emit, clock = _emitter(registry), time.perf_counter()
    try:
        kept = train_teacher(
            settings, where, registry, resolve(device), path, emit, save_every=save_every, replace=force
        )
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        why = "interrupted" if stopped else one_line(error)
        failed = RunFailed(name=settings.name, error=why, seconds=time.perf_counter() - clock)
        emit("ddrank_run_failed", failed)
        if stopped:
            raise Interrupted("interrupted; the same command goes on from about a minute before") from None
        raise
    finished = RunFinished(
        name=settings.name, folder=path.parent, scores={}, arms={}, seconds=time.perf_counter() - clock
    )
    emit("ddrank_run_finished", finished)
    return kept


def _emitter(registry: Registry) -> Emit:
    from ddrank_core.cli.problems import warn

    def emit(hook: str, event: object) -> None:
        warn(str(fault) for fault in registry.host.notify(hook, event))

    return emit


def _summary(kept: KeptTeacher, settings: TeacherConfig, path: Path, seconds: float) -> str:
    if kept.trained:
        how = f"trained in {seconds:.0f} s"
    elif settings.recipe is None:
        how = "with its library's weights, nothing to train"
    else:
        how = "trained before, nothing to do" if not kept.written else "trained before, read from the cache"
    reached = (
        "not tested" if kept.about.accuracy is None else f"test accuracy {100 * kept.about.accuracy:.1f} %"
    )
    return f"{path}: {settings.network.use} on {settings.dataset.use}, {reached} ({how})"
