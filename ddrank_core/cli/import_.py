"""`ddrank import`: turn what a method published into a distilled set of this project."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ddrank_core.data.importers.fkd import Imported
    from ddrank_core.types import DistilledSet


def _numbers(_context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...]:
    from ddrank_core.errors import ConfigError

    try:
        return tuple(float(item) for item in text.split(",")) if text is not None else ()
    except ValueError as error:
        raise ConfigError(f"--{option.name} {text}: must be numbers with commas, one per channel") from error


def _pairs(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    from ddrank_core.errors import ConfigError

    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--info {text}: must look like key=value, such as method=DM")
        pairs[key] = value
    return pairs


_FILE = click.Path(path_type=Path)


@click.command("import")
@click.argument("source", type=_FILE)
@click.argument("output", type=_FILE)
@click.option("--dataset", metavar="NAME", help="The data set it stands for: mnist, cifar10, ...")
@click.option("--space", type=click.Choice(["unit", "normalised", "zca"]), help="What the pixel values are.")
@click.option("--mean", callback=_numbers, metavar="A,B,C", help="The mean its images were normalised with.")
@click.option("--std", callback=_numbers, metavar="A,B,C", help="The standard deviation, likewise.")
@click.option("--num-classes", type=click.IntRange(min=1), help="Where --dataset does not say it.")
@click.option("--soft-kind", type=click.Choice(["logits", "probabilities"]), help="What its soft labels are.")
@click.option("--experiment", type=click.IntRange(min=0), help="Which of a DC file's experiments, from 0.")
@click.option("--labels", type=_FILE, help="The labels file, if SOURCE is an images file.")
@click.option("--soft-labels", type=_FILE, help="The soft labels file, beside hard labels.")
@click.option("--lr", type=_FILE, help="The file with the learning rate.")
@click.option(
    "--info", multiple=True, callback=_pairs, metavar="KEY=VALUE", help="A note to keep: method=DM, ..."
)
@click.option("--images", type=_FILE, help="The distilled set that a folder of FKD labels is of.")
@click.option(
    "--order-seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    help="The seed of FKD labels' order; 42 where not given.",
)
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
def command(
    source: Path, output: Path, images: Path | None, order_seed: int | None, force: bool, **options: Any
) -> None:
    """Turn SOURCE, as a distillation method published it, into OUTPUT (.safetensors).

    SOURCE is the .pt file of the DC family; an images .pt file, or a folder with images*.pt,
    labels*.pt and perhaps lr*.pt; or a folder with one folder of pictures per class.

    Or it is a folder of FKD labels (SRe2L, CDA, G-VBSM, ...: epoch_0/batch_0.tar, ...) of a distilled set
    that has been imported before, given with --images. OUTPUT then holds stored views, for a config's
    distilled.views.
    """
    from ddrank_core.data import distilled
    from ddrank_core.data.importers import ImportOptions, read_source
    from ddrank_core.data.importers.fkd import is_fkd

    _check_output(output, force)
    if images is not None or order_seed is not None or is_fkd(source):
        _import_views(source, output, images, order_seed, options)
        return
    imported = read_source(source, ImportOptions(**options))
    distilled.save(imported, output)
    click.echo(f"imported {_describe(imported)}")
    click.echo(f"wrote {output} (sha256 {distilled.digest(output)})")


def _check_output(output: Path, force: bool) -> None:
    """Find out before the work, not after it, that its result cannot be written."""
    from ddrank_core.errors import ConfigError

    if output.suffix != ".safetensors":
        raise ConfigError(f"{output}: OUTPUT must end in .safetensors")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: OUTPUT: no such folder: {output.parent}")
    if output.is_dir():
        raise ConfigError(f"{output}: OUTPUT is a folder; name a file")
    if output.exists() and not force:
        raise ConfigError(f"{output}: exists; give --force to replace it, or another OUTPUT")


def _import_views(
    source: Path, output: Path, images: Path | None, order_seed: int | None, options: dict[str, Any]
) -> None:
    from ddrank_core.cli.progress import progress
    from ddrank_core.data.importers.fkd import is_fkd, write_views
    from ddrank_core.errors import DataError

    if not is_fkd(source):
        raise DataError(
            f"{source}: no FKD labels (epoch_0/batch_0.tar), which --images and --order-seed need"
        )
    if images is None:
        raise DataError(
            f"{source}: FKD labels; give with --images the distilled set that they are of, which "
            "'ddrank import' makes of its folder of pictures"
        )
    for name, value in options.items():
        if value and name != "soft_kind":
            raise DataError(f"{source}: --{name.replace('_', '-')} does not apply to FKD labels")
    with progress(f"import {source.name}", "epochs") as report:
        found = write_views(
            source, images, output, order_seed=order_seed, soft_kind=options["soft_kind"], report=report
        )
    click.echo(f"imported views: {_describe_views(found)}")
    click.echo(f"wrote {output}")


def _describe_views(found: Imported) -> str:
    about = found.about
    mixed = {"no": "not mixed", "paste": "mixed by boxes (CutMix)", "weight": "mixed by weight (MixUp)"}
    order = {
        None: "order as in the files",
        1: "order of torch before 1.12",
        2: "order of torch 1.12 and later",
    }
    facts = [
        f"{about.epochs} epochs of {about.count}",
        f"batches of {about.batch_size}",
        mixed[about.mixed],
        f"{about.num_classes} classes",
        about.soft_kind,
        order[found.draws],
        f"{found.agreement:.1%} of the highest labels are the class of an image in the view "
        f"({found.chance:.1%} by chance)",
    ]
    return ", ".join(facts)


def _describe(imported: DistilledSet) -> str:
    counts = imported.labels.bincount(minlength=imported.num_classes)
    fewest, most = int(counts.min()), int(counts.max())
    facts = [
        f"{len(imported.images)} images {'x'.join(map(str, imported.images.shape[1:]))}",
        f"{imported.num_classes} classes",
        f"IPC {most}" if fewest == most else f"{fewest} to {most} images per class",
        f"{imported.space.kind} space",
    ]
    if imported.soft_labels is not None:
        facts.append(f"soft labels ({imported.soft_kind})")
    if imported.learning_rate is not None:
        facts.append(f"learning rate {imported.learning_rate:g}")
    experiment = imported.info.get("experiment")
    if experiment:
        facts.append(f"experiment {experiment['index']} of {experiment['of']} (from 0)")
    for network, values in imported.info.get("recorded_accuracies", {}).items():
        facts.append(f"recorded accuracy {_percent(values)} ({network}, {len(values)} trainings)")
    return ", ".join(facts)


def _percent(accuracies: list[float]) -> str:
    """Return mean and population standard deviation, as the DC family prints them."""
    mean = math.fsum(accuracies) / len(accuracies)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in accuracies) / len(accuracies))
    return f"{100 * mean:.2f} ± {100 * spread:.2f} %"
