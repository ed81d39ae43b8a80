"""The tensors that pass between the engine and components, named and shaped.

Importing this module does not import torch. B is the batch, N a whole set, K the number of
classes, C x H x W an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from torch import Generator, Tensor

SoftKind = Literal["logits", "probabilities"]


@attrs.frozen
class Randomness:
    """A trial's own source of random draws; no component draws from anything else.

    `device` lives where the images live. `host` is on the CPU, for the few decisions that
    Python takes (which strategy a batch gets): drawing from it never waits for the device.
    """

    device: Generator
    host: Generator


@attrs.frozen(eq=False)
class Mixing:
    """Which image was mixed into each one, and what is left of the original."""

    partner: Tensor
    """int64 [B]: the index, in the same batch, of the image that was mixed in."""
    weight: Tensor
    """float32 [B] in [0, 1]: the share of the original image; the partner's is 1 - weight."""


@attrs.frozen(eq=False)
class Augmented:
    """What an augmentation returns: new images, and how they were mixed if they were."""

    images: Tensor
    """[B, C, H, W], dtype and device as handed in."""
    mixing: Mixing | None = None


@attrs.frozen(eq=False)
class View:
    """A batch as a label mapping sees it: after augmentation, with all that is stored about it."""

    images: Tensor
    """float32 [B, C, H, W], normalised with the data set's statistics, augmented."""
    hard: Tensor
    """int64 [B]: class labels of the images before mixing."""
    soft: Tensor | None = None
    """float32 [B, K]: stored soft labels of the images before mixing."""
    soft_kind: SoftKind = "logits"
    mixing: Mixing | None = None
    soft_temperature: float = 1.0
    """What the stored probabilities were softened with: softmax(logits / T). 1 for logits."""
    num_classes: int = 0
    """K."""


@attrs.frozen(eq=False, kw_only=True)
class Targets:
    """What a loss trains towards.

    Where images were mixed, `partner_hard` and `weight` are set: the target is `weight` parts of
    the image's own label and `1 - weight` parts of its partner's. `partner_soft` is set only
    where soft labels belong to the unmixed images; a teacher's labels for the mixed view need none.
    """

    hard: Tensor
    """int64 [B]."""
    partner_hard: Tensor | None = None
    """int64 [B]."""
    weight: Tensor | None = None
    """float32 [B] in [0, 1]."""
    soft: Tensor | None = None
    """float32 [B, K], logits or probabilities as `soft_kind` says."""
    partner_soft: Tensor | None = None
    """float32 [B, K]."""
    soft_kind: SoftKind = "logits"
    soft_temperature: float = 1.0
    """What the probabilities were softened with before they were stored. 1 for logits."""

    def part(self, places: slice) -> Targets:
        """Return the targets of some images of the batch."""
        tensors = ("hard", "partner_hard", "weight", "soft", "partner_soft")
        given = {name: tensor for name in tensors if (tensor := getattr(self, name)) is not None}
        sliced: dict[str, Any] = {name: tensor[places] for name, tensor in given.items()}
        return attrs.evolve(self, **sliced)

    def soft_probabilities(self, temperature: float = 1.0) -> Tensor:
        """Return the soft labels as probabilities [B, K], softened, with mixed labels mixed.

        Logits give softmax(logits / T). Probabilities p that were stored at a temperature S give p^(S/T),
        normalised: the same thing, since S log p are logits of p. A zero probability stays zero.

        Raises:
            ValueError: if there are no soft labels.
        """
        if self.soft is None:
            raise ValueError("the label mapping gives no soft labels")
        # What is left to soften by: probabilities have been softened once before.
        left = temperature if self.soft_kind == "logits" else temperature / self.soft_temperature
        own = _soften(self.soft, self.soft_kind, left)
        if self.partner_soft is None or self.weight is None:
            return own
        weight = self.weight.unsqueeze(1)
        return weight * own + (1 - weight) * _soften(self.partner_soft, self.soft_kind, left)

    def soft_logits(self) -> Tensor:
        """Return the soft labels as logits [B, K], with mixed labels mixed linearly.

        Raises:
            ValueError: if there are no soft labels, or they are stored as probabilities, from
                which logits cannot be recovered (any constant per image could be added).
        """
        if self.soft is None:
            raise ValueError("the label mapping gives no soft labels")
        if self.soft_kind != "logits":
            raise ValueError("the soft labels are probabilities, and this loss needs logits")
        if self.partner_soft is None or self.weight is None:
            return self.soft
        weight = self.weight.unsqueeze(1)
        return weight * self.soft + (1 - weight) * self.partner_soft


def _soften(soft: Tensor, kind: SoftKind, temperature: float) -> Tensor:
    if kind == "logits":
        return (soft / temperature).softmax(dim=1)
    if temperature == 1.0:
        return soft
    # Not `soft ** (1 / T)`: at a small T every class could underflow, and 0 / 0 is NaN.
    return (soft.log() / temperature).softmax(dim=1)


@attrs.frozen(kw_only=True)
class ImageSpace:
    """The space that pixel values live in.

    `unit` is [0, 1]; `normalised` is (unit - mean) / std per channel; `zca` is a whitening that
    was fitted on the real training set.
    """

    kind: Literal["unit", "normalised", "zca"]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@attrs.frozen(eq=False, kw_only=True)
class RealData:
    """A real data set in memory, on the CPU; the engine moves it to the device."""

    train_images: Tensor
    """uint8 [N, C, H, W] in 0..255, or float32 in [0, 1]."""
    train_labels: Tensor
    """int64 [N] in 0..K-1."""
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Per channel, of unit-range pixels: what images are normalised with."""
    std: tuple[float, ...]
    source: str
    """Where the data is from, for the record."""
    digest: str | None = None
    """Stands for every pixel and label, where hashing them anew at each run would take long."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train_images.shape[1:]
        return int(channels), int(height), int(width)


@attrs.frozen(eq=False, kw_only=True)
class DistilledSet:
    """A distilled set, on the CPU, as a method left it."""

    images: Tensor
    """float32 [N, C, H, W] in `space`."""
    labels: Tensor
    """int64 [N], in any order."""
    space: ImageSpace
    num_classes: int
    soft_labels: Tensor | None = None
    """float32 [N, K]."""
    soft_kind: SoftKind = "logits"
    soft_temperature: float = 1.0
    """What stored probabilities were softened with: softmax(logits / T). 1 for logits."""
    learning_rate: float | None = None
    """The rate that the method found for its own images, if it brings one."""
    info: Mapping[str, Any] = attrs.field(factory=dict)
    """Where it is from: `dataset`, `method`, `source`, whatever the importer knew. JSON values."""

    @property
    def ipc(self) -> int:
        """Images per class, rounded down where classes differ."""
        return len(self.labels) // self.num_classes
