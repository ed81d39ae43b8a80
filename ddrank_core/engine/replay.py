"""Shows stored views again, exactly as they were when a teacher labelled them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from ddrank_core.data.stored_views import Views, in_pixels
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.plan import Training
from ddrank_core.types import Mixing, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def replayed(data: ImageSet, training: Training, epoch: int) -> Iterator[View]:
    """Yield the batches of an epoch, from 0; without soft labels where they are of other images.

    A view is cropped and resized, mirrored, then mixed with the finished view of its partner.

    Source: VILA-Lab/SRe2L, SRe2L/relabel/utils_fkd.py and SRe2L/validate/train_FKD.py; the same in G-VBSM's
    and EDC's. Deviation: SRe2L and G-VBSM crop 8-bit pictures, so each resized crop is rounded to 256 levels.
    """
    assert data.views is not None  # the config's cross-check asks for them
    # Labels are nearly all of what an epoch holds, and random images have no use for them.
    views = _on(data.views.epoch(epoch, with_labels=data.views_are_labelled), data.labels.device)
    for start in range(0, len(views.image), training.batch_size):
        yield _view(data, views, start, min(start + training.batch_size, len(views.image)))


def _on(views: Views, device: torch.device) -> Views:
    given = attrs.asdict(views, recurse=False, filter=lambda _, tensor: tensor is not None)
    return Views(**{name: tensor.to(device, non_blocking=True) for name, tensor in given.items()})


def _view(data: ImageSet, views: Views, start: int, stop: int) -> View:
    import torch

    from ddrank_core.views import crop_and_resize

    places = slice(start, stop)
    image = views.image[places]
    images = data.batch(image)
    # Stored as float32 shares of what were whole pixels.
    boxes = in_pixels(views.box[places], (images.shape[2], images.shape[3])).round()
    images = crop_and_resize(images, boxes)
    images = torch.where(views.flip[places].view(-1, 1, 1, 1), images.flip(3), images)
    images, mixing = _mixed(images, views, places)
    assert data.views is not None
    return View(
        images=images,
        hard=data.labels[image],
        soft=None if views.soft is None else views.soft[places].float(),
        soft_kind=data.views.soft_kind,
        mixing=mixing,
        soft_temperature=data.views.soft_temperature,
        num_classes=data.num_classes,
    )


def _mixed(images: Tensor, views: Views, places: slice) -> tuple[Tensor, Mixing | None]:
    import torch

    if views.partner is None:
        return images, None
    partner = views.partner[places] - places.start
    other = images[partner]
    if views.weight is not None:
        weight = views.weight[places]
        share = weight.view(-1, 1, 1, 1)
        return share * images + (1 - share) * other, Mixing(partner, weight)
    assert views.paste is not None  # one of the two, by the file's check
    pasted = _inside(views.paste[places], images.shape[2], images.shape[3])
    weight = 1 - pasted.float().mean(dim=(1, 2))
    return torch.where(pasted.unsqueeze(1), other, images), Mixing(partner, weight)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return bool [B, H, W]: which pixels lie in `boxes` [B, 4] (top, left, bottom, right)."""
    import torch

    top, left, bottom, right = boxes.unbind(dim=1)
    row = torch.arange(height, device=boxes.device)
    column = torch.arange(width, device=boxes.device)
    rows = (row >= top.view(-1, 1)) & (row < bottom.view(-1, 1))
    columns = (column >= left.view(-1, 1)) & (column < right.view(-1, 1))
    return rows.unsqueeze(2) & columns.unsqueeze(1)
