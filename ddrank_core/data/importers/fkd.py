"""The labels of SRe2L and its followers: folders of epochs of batches, each with its views (FKD).

`epoch_<e>/batch_<b>.tar` is a torch file of a list: crops as shares [B, 4] (top, left, height, width), flips
[B], the partners in the batch [B], the weight and the pasted box where images were mixed, a teacher's logits
[B, K], in half precision or not; in G-VBSM's and EDC's files then the images' positions [B], in EDC's a
patch order too. In SRe2L's and CDA's files nothing says which images a batch shows: the seed of the order
and the labels have to.

Source: VILA-Lab/SRe2L, SRe2L/relabel/utils_fkd.py and generate_soft_label.py;
shaoshitong/G_VBSM_Dataset_Condensation and shaoshitong/EDC, Branch_full_ImageNet_1k/relabel/. EDC's patch
order is not used: its shuffling puts the patches back where they were.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.data import distilled, stored_views, unpickle
from ddrank_core.data.importers.assemble import soft_kind as kind_of
from ddrank_core.data.stored_views import About, Views
from ddrank_core.errors import DataError, one_line
from ddrank_core.types import SoftKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ORDER_SEED = 42
"""The originals' `--fkd-seed`."""
DRAWS = (2, 1)
"""Permutations that an epoch takes from the order's generator: its own, and since torch 1.12 another one that
`RandomSampler` does not use (pytorch/pytorch#71568)."""
_SAMPLE = 2000
"""Views by which an order is told from a wrong one."""


@attrs.frozen(kw_only=True)
class Imported:
    """What an import came to."""

    about: About
    agreement: float
    """The share of views whose highest label is the class of an image in it."""
    chance: float
    """What that share would be in a random order."""
    draws: int | None
    """How many permutations an epoch took; None where the files say which images they show."""


@attrs.frozen(eq=False, kw_only=True)
class _Batch:
    """The content of one file, or of one epoch's files put together."""

    box: Tensor
    flip: Tensor
    soft: Tensor
    partner: Tensor | None = None
    paste: Tensor | None = None
    weight: Tensor | None = None
    image: Tensor | None = None

    def kind(self) -> tuple[object, ...]:
        """Return what must be alike in all batches."""
        given = [getattr(self, name) is not None for name in ("partner", "paste", "weight", "image")]
        return (self.soft.dtype, self.soft.shape[1], *given)


@attrs.frozen(eq=False, kw_only=True)
class _Target:
    """What the views are to be of."""

    path: Path
    labels: Tensor
    """int64 [N], on the CPU."""
    num_classes: int
    size: tuple[int, int]
    """Height, width."""


def is_fkd(source: Path) -> bool:
    """Return whether a source looks like a folder of epochs of batches."""
    return source.is_dir() and any(source.glob("epoch_*/batch_*.tar"))


def write_views(
    source: Path,
    images: Path,
    output: Path,
    *,
    order_seed: int | None = None,
    soft_kind: SoftKind | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Turn the folder `source` into stored views of the distilled set `images`, epoch by epoch.

    `order_seed` is the seed of the images' order where the files do not say it, 42 where not given.

    Raises:
        DataError: one line that names the file, what is wrong and what to do.
    """
    target = _target(images)
    files = _files(source)
    first = _batch(files[0][0])
    views_per_file = len(first.flip)

    def epoch(number: int) -> _Batch:
        return _epoch(files[number], len(files[0]), views_per_file, first, target)

    sample = [epoch(number) for number in range(min(len(files), max(2, _SAMPLE // len(target.labels))))]
    about = About(
        epochs=len(files),
        count=len(target.labels),
        num_classes=target.num_classes,
        batch_size=views_per_file,
        mixed="no" if first.partner is None else "weight" if first.paste is None else "paste",
        soft_dtype="F16" if str(first.soft.dtype) == "torch.float16" else "F32",
        soft_kind=soft_kind or kind_of(first.soft.float()),
    )
    if first.image is not None and order_seed is not None:
        raise DataError(f"{source}: --order-seed: the files say themselves which images they show")
    seed = ORDER_SEED if order_seed is None else order_seed
    found = _find_order(sample, about, target, seed, source)
    del sample

    def views() -> Iterator[Views]:
        orders = _orders(about.count, seed, found.draws)
        for number, order in zip(range(len(files)), orders, strict=False):
            yield _shown(epoch(number), order, about, target, f"{source}: epoch_{number}")
            report(number + 1, len(files))

    stored_views.save(views(), about, output)
    return found


def _target(images: Path) -> _Target:
    from safetensors import safe_open

    header = distilled.header(images)
    try:
        with safe_open(images, framework="pt") as file:
            labels: Tensor = file.get_tensor("labels")
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise DataError(f"{images}: labels: cannot be read: {one_line(error)}") from error
    if int(labels.min()) < 0 or int(labels.max()) >= header.num_classes:
        raise DataError(f"{images}: labels: must be from 0 to {header.num_classes - 1}")
    _, height, width = header.image_shape
    return _Target(path=images, labels=labels, num_classes=header.num_classes, size=(height, width))


# The files


def _files(source: Path) -> list[list[Path]]:
    """Return the batch files of each epoch, in order."""
    try:
        epochs = _numbered(source, "epoch_", "")
        return [_numbered(epoch, "batch_", ".tar") for epoch in epochs]
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from error


def _numbered(folder: Path, start: str, end: str) -> list[Path]:
    """Return what a folder holds under numbered names, which must go from 0 on without a gap."""
    pattern = re.compile(f"{start}([0-9]{{1,9}}){end}")
    found = {int(m.group(1)): item for item in folder.iterdir() if (m := pattern.fullmatch(item.name))}
    missing = next(number for number in range(len(found) + 1) if number not in found)
    if missing < len(found) or not found:
        raise DataError(f"{folder}: {start}{missing}{end}: missing; not all of the labels are there")
    return [item for _, item in sorted(found.items())]


def _epoch(files: Sequence[Path], count: int, size: int, first: _Batch, target: _Target) -> _Batch:
    """Return the views of an epoch: `count` files of `size` each, the last one with what is left."""
    if len(files) != count:
        raise DataError(f"{files[0].parent}: {len(files)} batches, but epoch_0 has {count}")
    batches = [_batch(file) for file in files]
    for file, batch in zip(files, batches, strict=True):
        if batch.kind() != first.kind():
            raise DataError(f"{file}: other labels, or mixed in another way, than the first batch")
        if len(batch.flip) != size and (file is not files[-1] or len(batch.flip) > size):
            raise DataError(f"{file}: {len(batch.flip)} views, but the first batch has {size}")
    whole = _joined(batches, size)
    if len(whole.flip) != len(target.labels):
        raise DataError(
            f"{files[0].parent}: {len(whole.flip)} views, but {target.path} has {len(target.labels)} images"
        )
    if whole.soft.shape[1] != target.num_classes:
        raise DataError(
            f"{files[0]}: {whole.soft.shape[1]} values per label, but {target.path} has "
            f"{target.num_classes} classes"
        )
    return whole


def _joined(batches: Sequence[_Batch], size: int) -> _Batch:
    import torch

    def joined(name: str) -> Any:
        parts = [getattr(batch, name) for batch in batches]
        if parts[0] is None:
            return None
        if name == "partner":
            parts = [part + number * size for number, part in enumerate(parts)]
        return torch.cat(parts)

    return _Batch(**{field.name: joined(field.name) for field in attrs.fields(_Batch)})


def _batch(path: Path) -> _Batch:
    import torch

    content = unpickle.read(path)
    if not isinstance(content, (list, tuple)) or not 6 <= len(content) <= 8:
        raise DataError(f"{path}: not a batch of FKD labels (a list of 6 to 8 things)")
    box, flip, partner, weight, paste, soft, *rest = content
    count = len(flip) if isinstance(flip, torch.Tensor) and flip.ndim == 1 else 0
    if not count:
        raise DataError(f"{path}: flips: must be a tensor [B]")
    held = path.stat().st_size
    box = _tensor(box, (count, 4), torch.float32, held, f"{path}: crops")
    flip = _tensor(flip, (count,), torch.bool, held, f"{path}: flips")
    image = _tensor(rest[0], (count,), torch.int64, held, f"{path}: images") if rest else None
    soft = _tensor(soft, (count, -1), None, held, f"{path}: labels")
    batch = _Batch(box=box, flip=flip, soft=soft, image=image)
    if partner is None:
        return batch
    partner = _tensor(partner, (count,), torch.int64, held, f"{path}: partners")
    if int(partner.min()) < 0 or int(partner.max()) >= count:
        raise DataError(f"{path}: partners: must be from 0 to {count - 1}")
    if paste is None:
        return attrs.evolve(batch, partner=partner, weight=_weights(weight, count, path))
    return attrs.evolve(batch, partner=partner, paste=_pastes(paste, count, path))


def _tensor(value: Any, shape: tuple[int, ...], dtype: torch.dtype | None, held: int, where: str) -> Tensor:
    """Return a tensor of a shape (-1 for any) and type (None for any float type), or refuse it."""
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        raise DataError(f"{where}: {type(value).__name__}, but must be a dense tensor")
    tensor: Tensor = value.detach()
    found = tuple(tensor.shape)
    fits = len(found) == len(shape) and all(s in (-1, n) for n, s in zip(found, shape, strict=True))
    right = tensor.is_floating_point() if dtype is None else tensor.dtype == dtype
    # A tensor of few bytes can claim any shape by repeating them.
    if not fits or not right or 0 in found or tensor.numel() * tensor.element_size() > held:
        wanted = f"{dtype or 'a float type'} {list(shape)}"
        raise DataError(f"{where}: {tensor.dtype} {list(found)}, but must be {wanted}")
    return tensor if dtype is not None or tensor.dtype == torch.float16 else tensor.float()


def _weights(weight: Any, count: int, path: Path) -> Tensor:
    import torch

    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise DataError(f"{path}: weight: {type(weight).__name__}, but mixed images without a box need one")
    return torch.full((count,), float(weight))


def _pastes(paste: Any, count: int, path: Path) -> Tensor:
    import torch

    sides = list(paste) if isinstance(paste, (list, tuple)) else []
    if len(sides) != 4 or not all(type(side) is int and 0 <= side < 1 << 30 for side in sides):
        raise DataError(f"{path}: box: must be four whole numbers of pixels")
    return torch.tensor(sides).expand(count, 4)


# The order


def _orders(count: int, seed: int, draws: int | None) -> Iterator[Tensor | None]:
    """Yield each epoch's order of the images, a permutation of 0..count-1; None where the files say it.

    Source: torch.utils.data.RandomSampler with a generator, one for all epochs.
    """
    import torch

    if draws is None:
        yield from repeat(None)
        return
    source = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randperm(count, generator=source)
        for _ in range(draws - 1):
            torch.randperm(count, generator=source)


def _shown(batch: _Batch, order: Tensor | None, about: About, target: _Target, where: str) -> Views:
    """Return an epoch's views, checked."""
    given = {f.name: getattr(batch, f.name) for f in attrs.fields(_Batch)}
    views = Views(**given if order is None else {**given, "image": order})
    stored_views.check_places(views, about, about.count, target.size, where)
    return views


def _find_order(sample: Sequence[_Batch], about: About, target: _Target, seed: int, source: Path) -> Imported:
    """Return which order makes the labels fit the images best, if it is better than chance.

    A teacher gives a view the class of one of its images far more often than chance, so a wrong order shows.
    """
    known = sample[0].image is not None

    def tried(draws: int | None) -> Imported:
        pairs = enumerate(zip(sample, _orders(about.count, seed, draws), strict=False))
        views = [_shown(batch, order, about, target, f"{source}: epoch_{n}") for n, (batch, order) in pairs]
        agreement, chance = _agreement(views, target)
        return Imported(about=about, agreement=agreement, chance=chance, draws=draws)

    # Of equals the first is taken: an older torch has to show.
    best = max(map(tried, (None,) if known else DRAWS), key=lambda found: found.agreement)
    deviation = math.sqrt(best.chance * (1 - best.chance) / (len(sample) * about.count))
    bar = best.chance + 4 * deviation
    # A handful of views cannot pass it, and says nothing.
    if best.agreement <= bar < 1:
        order = "" if known else f"the order is not that of --order-seed {seed}, or "
        raise DataError(
            f"{source}: the highest label is the class of an image in the view in {best.agreement:.1%} of "
            f"the views, no more than by chance ({best.chance:.1%}): {order}the views are not of "
            f"{target.path}, or its images are in another order"
        )
    return best


def _agreement(views: Sequence[Views], target: _Target) -> tuple[float, float]:
    """Return how often the highest label is the class of an image in the view, and how often by chance."""
    import torch

    own = torch.cat([target.labels[shown.image] for shown in views])
    highest = torch.cat([shown.soft.argmax(dim=1) for shown in views if shown.soft is not None])
    agrees = highest == own
    others = 1 - own.bincount(minlength=target.num_classes) / len(own)
    if views[0].partner is not None:
        partners = [target.labels[v.image[v.partner]] for v in views if v.partner is not None]
        agrees |= highest == torch.cat(partners)
        others = others**2
    return float(agrees.float().mean()), float((1 - others)[highest].mean())
