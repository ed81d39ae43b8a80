"""Trains one student, and asks it about a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.engine.images import ImageSet, Normaliser
from ddrank_core.engine.plan import Training
from ddrank_core.engine.seed import derive, generator, randomness
from ddrank_core.protocols import Teachers
from ddrank_core.types import Mixing, Randomness, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ddrank_core.protocols import Architecture

_EVALUATION_PIXELS = {"cuda": 4096 * 3 * 32 * 32, "cpu": 64 * 3 * 32 * 32}
"""Values per forward pass of a test. On a CPU larger batches only take more memory, and are no faster."""

_DIVERGENCE_CHECK_EPOCHS = 25
_ORDERS_PER_DRAW = 1_000_000


@attrs.frozen(eq=False, kw_only=True)
class Setting:
    """What every training of a run shares."""

    device: torch.device
    precision: str
    normaliser: Normaliser
    teachers: Teachers


def build(architecture: Architecture, num_classes: int, shape: tuple[int, int, int], seed: int) -> nn.Module:
    """Return a network with the initial weights of `seed`, on the CPU; the global generator is as before."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        return architecture.build(num_classes, shape)


def train(
    network: nn.Module,
    data: ImageSet,
    training: Training,
    learning_rate: float,
    seed: int,
    setting: Setting,
    after_epoch: Callable[[int], None],
) -> bool:
    """Train `network` in place on all of `data`; return whether it stayed finite.

    A step waits for nothing: indices are drawn for many epochs at once, images are gathered on the
    device, and whether the loss stayed finite is kept there and read every 25th epoch.
    `after_epoch(epoch)` is called with the epoch's number, from 1.

    What a network draws in its forward pass (dropout) comes from torch's global generators, which are
    seeded from `seed` for the length of the training and put back afterwards.
    """
    import torch

    devices = [setting.device] if setting.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, "forward"))
        return _train(network, data, training, learning_rate, seed, setting, after_epoch)


def _train(
    network: nn.Module,
    data: ImageSet,
    training: Training,
    base_rate: float,
    seed: int,
    setting: Setting,
    after_epoch: Callable[[int], None],
) -> bool:
    import torch

    optimizer = training.optimizer.component.build(network.parameters(), base_rate)
    draws = randomness(seed, setting.device)
    finite = torch.ones((), dtype=torch.bool, device=setting.device)
    network.train()
    for epoch, order in enumerate(_orders(len(data), training.epochs, seed, setting.device)):
        rate = base_rate * training.schedule.component.factor(epoch, training.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        for index in torch.split(order, training.batch_size):
            loss = _loss(network, data, index, training, draws, setting)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            finite &= loss.detach().isfinite()
        if (epoch + 1) % _DIVERGENCE_CHECK_EPOCHS == 0 and not finite.item():
            return False
        after_epoch(epoch + 1)
    return bool(finite.item())


def _orders(count: int, epochs: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Yield a permutation of 0..count-1 per epoch, int64 on the device, drawn on the CPU in blocks."""
    import torch

    source = generator(derive(seed, "order"))
    block = max(1, _ORDERS_PER_DRAW // count)
    for start in range(0, epochs, block):
        size = min(block, epochs - start)
        orders = torch.stack([torch.randperm(count, generator=source) for _ in range(size)])
        yield from orders.to(device, non_blocking=True)


def _loss(
    network: nn.Module, data: ImageSet, index: Tensor, training: Training, draws: Randomness, setting: Setting
) -> Tensor:
    images, mixing = augment(data.batch(index), training, draws, setting.normaliser)
    view = View(
        images=images,
        hard=data.labels[index],
        soft=None if data.soft is None else data.soft[index],
        soft_kind=data.soft_kind,
        mixing=mixing,
    )
    targets = training.labels.component(view, setting.teachers)
    with autocast(setting):
        logits = network(images)
    return training.loss.component(logits.float(), targets)


def augment(
    images: Tensor, training: Training, draws: Randomness, normaliser: Normaliser
) -> tuple[Tensor, Mixing | None]:
    """Return normalised images [B, C, H, W] after every augmentation of the list, and how they were mixed."""
    mixing: Mixing | None = None
    for chosen in training.augmentation:
        unit = getattr(chosen.component, "space", "normalised") == "unit"
        out = chosen.component(normaliser.to_unit(images) if unit else images, draws)
        images = normaliser.normalise(out.images) if unit else out.images
        mixing = out.mixing or mixing
    return images, mixing


def autocast(setting: Setting) -> Any:
    """Return the context that a forward pass runs in: bf16 where the config asks for it."""
    import torch

    if setting.precision != "bf16":
        return nullcontext()
    return torch.autocast(setting.device.type, dtype=torch.bfloat16)


def predict(network: nn.Module, data: ImageSet, setting: Setting) -> Tensor | None:
    """Return the class that `network` gives each image, int64 [N] on the device, in evaluation mode.

    None if a logit is not finite: such a network predicts nothing. The labels are not looked at. Computed in
    fp32 whatever the training's precision: rounded logits tie, and a tie goes to the lower class.
    """
    import torch

    was_training = network.training
    network.eval()
    parts: list[Tensor] = []
    size = evaluation_batch(data, setting.device)
    finite = torch.ones((), dtype=torch.bool, device=setting.device)
    with torch.inference_mode():
        for start in range(0, len(data), size):
            logits = network(data.batch(slice(start, start + size)))
            finite &= logits.isfinite().all()
            parts.append(logits.argmax(dim=1))
        network.train(was_training)
        return torch.cat(parts) if finite.item() else None


def evaluation_batch(data: ImageSet, device: torch.device) -> int:
    """Return how many images of this size a forward pass without gradients takes at once."""
    return max(16, _EVALUATION_PIXELS[device.type] // max(1, data.images[0].numel()))


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of predictions that equal the labels, both int64 [N], exactly rounded."""
    return int((predictions.cpu() == labels.cpu()).sum()) / len(labels)
