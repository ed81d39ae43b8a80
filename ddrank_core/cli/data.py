"""`ddrank data`: which real data sets there are, what is known of one, and pictures decoded beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddrank_core.cli.options import overrides_option
from ddrank_core.cli.text import clean, table

if TYPE_CHECKING:
    from ddrank_core.data.facts import DatasetFacts
    from ddrank_core.data.pictures import Pictures
    from ddrank_core.protocols import Dataset
    from ddrank_core.registry import Entry, Registry
    from ddrank_core.structure import Chosen

MIB, GIB = 2**20, 2**30
WIDTH = 100


@click.group("data")
def command() -> None:
    """List and describe real data sets, and decode pictures beforehand."""


@command.command("list")
@click.option("--root", type=click.Path(path_type=Path), help="Where to look, instead of each one's default.")
def list_(root: Path | None) -> None:
    """List the data sets, which of them are there, and what is prepared.

    Data sets are looked for by the names of their files; 'ddrank data info NAME' reads them.
    """
    from ddrank_core.image_cache import all_prepared, images_folder

    registry = _registry()
    header = ("NAME", "TRAIN", "TEST", "SHAPE", "CLASSES", "FOUND")
    rows = [_row(entry, registry, root) for entry in registry.entries("dataset") if not entry.spec.is_family]
    click.echo(table([header, *rows]))
    prepared = all_prepared()
    if not prepared:
        click.echo(f"\nnothing prepared in {clean(str(images_folder()))}")
        return
    click.echo(f"\nprepared in {clean(str(images_folder()))}:\n")
    header = ("FOR", "IMAGES", "SHAPE", "SIZE", "FROM", "HOW")
    listed = [
        (p.label, f"{p.count:,}", _dims(p.shape), _size(p.pixel_bytes), p.root, p.recipe) for p in prepared
    ]
    click.echo(table([header, *listed]))


@command.command("info")
@click.argument("target", metavar="CONFIG_OR_DATASET")
@overrides_option
def info(target: str, overrides: tuple[str, ...]) -> None:
    """Say what is known of a data set, and what of it is there.

    \b
        ddrank data info cifar10
        ddrank data info tiny-imagenet --set dataset.root=/data
    """
    from ddrank_core.cli.dataset_target import resolve

    chosen = resolve(target, overrides, _registry())
    summary = chosen.entry.spec.summary
    click.echo(f"{clean(chosen.use)}: {clean(summary)}\n")
    facts = _facts(chosen)
    if facts is not None:
        click.echo(table(list(_fact_rows(facts))))
        if facts.class_names:
            click.echo(f"\nclasses:\n{_class_lines(facts)}")
        if facts.found is None:
            click.echo(f"\nnot found; 'ddrank show dataset {clean(chosen.use)}' says where to put it")
            return
    click.echo()
    click.echo(table(list(_there(chosen))))


@command.command("prepare")
@click.argument("target", metavar="CONFIG_OR_DATASET")
@overrides_option
@click.option("--workers", type=click.IntRange(1, 256), help="Decoding threads.  [default: the processors]")
def prepare(target: str, overrides: tuple[str, ...], workers: int | None) -> None:
    """Decode a data set's pictures once, into a file that every run then maps into memory.

    \b
        ddrank data prepare run.yaml
        ddrank data prepare imagenette --set dataset.root=/data/imagenet

    What is prepared belongs to these pictures at this size: a picture that is added or changed, or another
    size, is prepared anew. It lies in $DDRANK_CACHE/images, or ~/.cache/ddrank/images, and may be deleted.
    """
    from ddrank_core.cli.dataset_target import resolve
    from ddrank_core.image_cache import images_folder

    chosen = resolve(target, overrides, _registry())
    parts = _pictures(chosen)
    if parts is None:
        data = chosen.component.load()
        click.echo(
            f"{clean(chosen.use)}: sound, {len(data.train_labels):,} train and {len(data.test_labels):,} "
            "test images; it has no pictures to decode, nothing to prepare"
        )
        return
    for part in parts:
        click.echo(_prepare_part(part, chosen.use, workers))
    click.echo(f"in {clean(str(images_folder()))}")


def _prepare_part(part: Pictures, use: str, workers: int | None) -> str:
    from ddrank_core.cli.progress import progress
    from ddrank_core.image_cache import prepare

    label = f"{use} {part.name}"
    what = f"{clean(label)}: {len(part.files):,} images {_dims(part.shape)}, {_size(part.pixel_bytes)}"
    started = time.perf_counter()
    with progress(clean(label), "images") as report:
        is_new = prepare(part, label, report, workers)
    if not is_new:
        return f"{what}, was prepared already"
    seconds = max(time.perf_counter() - started, 1e-3)
    return f"{what}, prepared in {seconds:.0f} s ({len(part.files) / seconds:.0f} images/s)"


def _registry() -> Registry:
    from ddrank_core.cli.problems import warn
    from ddrank_core.registry import default_registry

    registry = default_registry()
    warn(registry.problems)
    return registry


def _row(entry: Entry, registry: Registry, root: Path | None) -> tuple[str, ...]:
    from ddrank_core.errors import DDRankError, one_line

    try:
        needs = _missing_parameters(entry, registry, root)
        if needs:
            return (entry.name, "", "", "", "", f"needs {', '.join(needs)}")
        return _fact_row(entry, _facts(_made(entry, registry, root)))
    except DDRankError as error:
        return (entry.name, "", "", "", "", f"cannot be used: {one_line(error)}")


def _fact_row(entry: Entry, facts: DatasetFacts | None) -> tuple[str, ...]:
    if facts is None:
        return (entry.name, "?", "?", "?", "?", "does not say")
    counts = [_count(n) for n in (facts.train_images, facts.test_images)]
    shape = "?" if facts.image_shape is None else _dims(facts.image_shape)
    found = "no" if facts.found is None else str(facts.found)
    return (entry.name, *counts, shape, _count(facts.num_classes), found)


def _missing_parameters(entry: Entry, registry: Registry, root: Path | None) -> list[str]:
    import attrs

    from ddrank_core.spec import parameters_of

    given = {*entry.spec.preset, *(() if root is None else ("root",))}
    fields = parameters_of(registry.load("dataset", entry.name))
    return [field.name for field in fields if field.default is attrs.NOTHING and field.name not in given]


def _made(entry: Entry, registry: Registry, root: Path | None) -> Chosen[Dataset]:
    from ddrank_core.cli.dataset_target import resolve
    from ddrank_core.spec import parameters_of

    takes_root = any(f.name == "root" for f in parameters_of(registry.load("dataset", entry.name)))
    chosen = resolve(entry.name, (), registry, {"root": str(root)} if root and takes_root else {})
    return chosen


def _facts(chosen: Chosen[Dataset]) -> DatasetFacts | None:
    facts: DatasetFacts | None = _asked(chosen, "facts", lambda facts: facts())
    return facts


def _pictures(chosen: Chosen[Dataset]) -> Sequence[Pictures] | None:
    parts: Sequence[Pictures] | None = _asked(chosen, "pictures", lambda pictures: tuple(pictures()))
    return parts


def _asked(chosen: Chosen[Dataset], method: str, ask: Callable[[Any], Any]) -> Any:
    """Return what an optional method of the data set returns, None where it has none."""
    from ddrank_core.errors import DDRankError, PluginError, one_line
    from ddrank_core.plugins import CONTAINED

    found = getattr(chosen.component, method, None)
    if found is None:
        return None
    try:
        return ask(found)
    except DDRankError:
        raise
    except CONTAINED as error:  # the plugin boundary
        raise PluginError(
            f"dataset '{chosen.use}' of {chosen.entry.owner}: {method}() fails: {one_line(error)}"
        ) from error


def _fact_rows(facts: DatasetFacts) -> Iterator[tuple[str, str]]:
    yield "source", facts.source
    yield "licence", facts.licence
    yield "classes", f"{_count(facts.num_classes)}, {facts.class_order}".strip(", ")
    yield "train images", _count(facts.train_images)
    yield "test images", _count(facts.test_images)
    yield "shape", "?" if facts.image_shape is None else f"{_dims(facts.image_shape)} (CxHxW)"
    if facts.mean or facts.std:
        yield "mean", _numbers(facts.mean)
        yield "std", _numbers(facts.std)
    yield "statistics", facts.statistics or "?"
    yield "checked by", facts.check or "?"


def _class_lines(facts: DatasetFacts) -> str:
    import textwrap

    if not any(facts.class_words):
        names = ", ".join(clean(name) for name in facts.class_names)
        return textwrap.fill(
            names, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
    words = facts.class_words
    rows = zip(map(str, range(len(words))), facts.class_names, words, strict=True)
    return table(list(rows), indent="  ")


def _there(chosen: Chosen[Dataset]) -> Iterator[tuple[str, str]]:
    """Say what is on this machine, and what stands for it: the digests that a run's record has too."""
    from ddrank_core.image_cache import open_prepared

    facts = _facts(chosen)
    if facts is not None:
        yield "found", str(facts.found)
    parts = _pictures(chosen)
    if parts is None:
        yield from _loaded(chosen)
        return
    for part in parts:
        yield f"{part.name} pictures", f"{len(part.files):,}, {part.recipe}"
        ready = open_prepared(part)
        state = "no; 'ddrank data prepare' does it" if ready is None else f"pixels sha256 {ready.digest}"
        yield f"{part.name} prepared", state
        yield f"{part.name} digest", f"{part.key()} (names, sizes and times of the files, and the decoding)"


def _loaded(chosen: Chosen[Dataset]) -> Iterator[tuple[str, str]]:
    from ddrank_core.engine.prepared import digest_of

    data = chosen.component.load()
    yield "train images", f"{len(data.train_labels):,}"
    yield "test images", f"{len(data.test_labels):,}"
    yield "class names", ", ".join(data.class_names)
    yield "mean", _numbers(data.mean)
    yield "std", _numbers(data.std)
    yield "train sha256", digest_of(data.train_images, data.train_labels)
    yield "test sha256", digest_of(data.test_images, data.test_labels)


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values) or "?"


def _dims(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"
