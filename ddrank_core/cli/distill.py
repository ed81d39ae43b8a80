"""`ddrank distill`: make a distilled set with a distillation method."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddrank_core.cli.options import device_option, overrides_option
from ddrank_core.cli.progress import progress

if TYPE_CHECKING:
    import torch

    from ddrank_core.config import DistillConfig
    from ddrank_core.types import DistilledSet, RealData


@click.command("distill")
@click.argument("config", type=click.Path(path_type=Path))
@overrides_option
@device_option
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
def command(config: Path, overrides: tuple[str, ...], device: str, force: bool) -> None:
    """Distil a data set as CONFIG says, into the .safetensors file that it names."""
    from ddrank_core.cli.problems import warn
    from ddrank_core.config import load_distill
    from ddrank_core.registry import default_registry

    registry = default_registry()
    warn(registry.problems)
    settings = load_distill(config, registry, overrides)
    _check_output(settings.output, str(config), force)
    # From here on torch is needed, which costs seconds to import.
    from ddrank_core.data.distilled import save
    from ddrank_core.engine.device import resolve

    place = resolve(device)
    data = settings.dataset.component.load()
    _check_student(settings, data, str(config))
    _open_folder(settings.output.parent, str(config))
    started = time.perf_counter()
    distilled = _distil(settings, data, place)
    save(distilled, settings.output)
    shape = "x".join(map(str, distilled.images.shape[1:]))
    click.echo(
        f"wrote {settings.output}: {settings.ipc} images for each of {distilled.num_classes} classes of "
        f"{settings.dataset.use}, {shape}, by {settings.method.use} in {time.perf_counter() - started:.0f} s"
    )


def _check_output(output: Path, where: str, force: bool) -> None:
    from ddrank_core.errors import ConfigError

    if output.is_dir():
        raise ConfigError(f"{where}: output: {output} is a folder; name a file")
    if output.exists() and not force:
        raise ConfigError(f"{where}: output: {output} exists; give --force to replace it, or another output")


def _open_folder(folder: Path, where: str) -> None:
    """Make the output's folder and write in it, to find out before the work that this cannot be done."""
    from tempfile import TemporaryFile

    from ddrank_core.errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{where}: output: cannot write in {folder}: {error.strerror}") from error


def _check_student(config: DistillConfig, data: RealData, where: str) -> None:
    """Build the student once, and throw it away, to refuse one that cannot take the images."""
    import torch

    from ddrank_core.errors import ConfigError

    with torch.random.fork_rng(devices=[]):
        try:
            config.student.component.build(data.num_classes, data.image_shape)
        except ValueError as error:
            raise ConfigError(f"{where}: student: {error}") from error


def _distil(config: DistillConfig, data: RealData, place: torch.device) -> DistilledSet:
    """Run the method, check what it returns, and add to it how it was made."""
    import attrs

    from ddrank_core.engine.device import deterministic
    from ddrank_core.errors import DDRankError, RunFailed, one_line

    whose = f"method '{config.method.use}' of {config.method.entry.owner}"
    with progress(f"{config.name} on {place}", "steps") as report, deterministic(place):
        try:
            distilled = config.method.component.distill(
                data, config.student.component, config.ipc, str(place), config.seed, report
            )
        except DDRankError:
            raise
        except Exception as error:  # the plugin boundary
            raise RunFailed(f"{whose} failed: {one_line(error)}") from error
    _check_result(distilled, data, config.ipc, whose)
    return attrs.evolve(distilled, info={**distilled.info, **_provenance(config)})


def _check_result(distilled: DistilledSet, data: RealData, ipc: int, whose: str) -> None:
    from ddrank_core.data.checks import check_against, validate
    from ddrank_core.errors import DataError, RunFailed

    if not bool(distilled.images.isfinite().all()):
        raise RunFailed(f"{whose} diverged to NaN or Inf; lower its learning rate (nothing is written)")
    try:
        validate(distilled, whose)
        check_against(distilled, data, ipc, whose)
    except DataError as error:
        raise RunFailed(f"{error} (nothing is written)") from error


def _provenance(config: DistillConfig) -> dict[str, Any]:
    """Return what it takes to make the same set again, without where it was written."""
    import torch

    from ddrank_core import __version__
    from ddrank_core.structure import plain

    fields = ("student", "ipc", "seed")
    return {
        "dataset": config.dataset.use,
        "method": config.method.use,
        "config": {"method": plain(config.method), **{name: plain(getattr(config, name)) for name in fields}},
        "versions": {"ddrank": __version__, "torch": torch.__version__},
    }
