"""Trains one student, and asks it about a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.engine.device import tf32
from ddrank_core.engine.execution import AS_IT_IS, Execution
from ddrank_core.engine.images import ImageSet, WorkingSpace
from ddrank_core.engine.plan import Training, replays_views
from ddrank_core.engine.replay import replayed
from ddrank_core.engine.seed import derive, generator, randomness
from ddrank_core.engine.unfinished import Generators, InPlace, Keeping, OfOptimizer, Part, global_generators
from ddrank_core.protocols import Augmentation, Teachers
from ddrank_core.structure import Chosen
from ddrank_core.types import Mixing, Randomness, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ddrank_core.protocols import Architecture

_EVALUATION_PIXELS = {"cuda": 4096 * 3 * 32 * 32, "cpu": 64 * 3 * 32 * 32}
"""Values per forward pass of a test. On a CPU larger batches only take more memory, and are no faster."""

DIVERGENCE_CHECK_EPOCHS = 25
_VALIDATION_SEED = 0
_ORDERS_PER_DRAW = 1_000_000


@attrs.frozen(eq=False, kw_only=True)
class Setting:
    """What every training of a run shares."""

    device: torch.device
    precision: str
    space: WorkingSpace
    teachers: Teachers
    validation: Sequence[Chosen[Augmentation]] = ()
    """What is done to images before a network is asked about them."""
    execution: Execution = AS_IT_IS
    """How a network runs that is trained or asked alone."""


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
    keeping: Keeping | None = None,
) -> bool:
    """Train `network` in place on all of `data`; return whether it stayed finite.

    A step waits for nothing: indices are drawn for many epochs at once, images are gathered on the
    device, and whether the loss stayed finite is kept there and read every 25th epoch.
    `after_epoch(epoch)` is called with the epoch's number, from 1.

    What a network draws in its forward pass (dropout) comes from torch's global generators, which are
    seeded from `seed` for the length of the training and put back afterwards.

    With `keeping`, a long training goes on where an earlier process was killed, to the last bit the same;
    `after_epoch` is then called for the epochs that are left.
    """
    import torch

    devices = [setting.device] if setting.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, "forward"))
        return _train(network, data, training, learning_rate, seed, setting, after_epoch, keeping)


def _train(
    network: nn.Module,
    data: ImageSet,
    training: Training,
    base_rate: float,
    seed: int,
    setting: Setting,
    after_epoch: Callable[[int], None],
    keeping: Keeping | None,
) -> bool:
    import torch

    optimizer = training.optimizer.component.build(network.parameters(), base_rate)
    finite = torch.ones((), dtype=torch.bool, device=setting.device)
    draws = randomness(seed, setting.device)
    network.train()
    done = 0
    if keeping is not None:
        parts: dict[str, Part] = {
            "network": InPlace([*network.parameters(), *network.buffers()]),
            "optimizer": OfOptimizer(optimizer),
            "finite": InPlace([finite]),
            "draws": Generators([draws.device, draws.host, *global_generators(setting.device)]),
        }
        done = keeping.begin(f"alone, {setting.execution}", training.epochs, setting.device, parts)
    for epoch, views in enumerate(epoch_views(data, training, seed, setting, draws, done), done):
        rate = base_rate * training.schedule.component.factor(epoch, training.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        for view in views:
            optimizer.zero_grad(set_to_none=True)
            loss = _backward(network, view, training, setting)
            optimizer.step()
            finite &= loss.isfinite()
        if (epoch + 1) % DIVERGENCE_CHECK_EPOCHS == 0 and not finite.item():
            return False
        after_epoch(epoch + 1)
        if keeping is not None:
            keeping.epoch_ended(epoch + 1)
    return bool(finite.item())


def orders(count: int, epochs: int, seed: int, device: torch.device, done: int = 0) -> Iterator[Tensor]:
    """Yield a permutation of 0..count-1 per epoch, int64 on the device, drawn on the CPU in blocks.

    Those of epochs that are `done` are left out.
    """
    import torch

    source = generator(derive(seed, "order"))
    for _ in range(done):
        torch.randperm(count, generator=source)
    block = max(1, _ORDERS_PER_DRAW // count)
    for start in range(done, epochs, block):
        size = min(block, epochs - start)
        orders = torch.stack([torch.randperm(count, generator=source) for _ in range(size)])
        yield from orders.to(device, non_blocking=True)


def epoch_views(
    data: ImageSet,
    training: Training,
    seed: int,
    setting: Setting,
    draws: Randomness | None = None,
    done: int = 0,
) -> Iterator[Iterator[View]]:
    """Yield, for each epoch that is not `done`, its batches as the network is to see them.

    `draws` are the seed's, as those epochs left them.
    """
    import torch

    if replays_views(training):
        yield from (replayed(data, training, epoch) for epoch in range(done, training.epochs))
        return
    draws = draws or randomness(seed, setting.device)
    for order in orders(len(data), training.epochs, seed, setting.device, done):
        yield (
            view(data, index, training, draws, setting) for index in torch.split(order, training.batch_size)
        )


def view(data: ImageSet, index: Tensor, training: Training, draws: Randomness, setting: Setting) -> View:
    """Return the images at `index`, int64 [B], augmented, with what is stored about them."""
    images, mixing = augment(data.batch(index), training.augmentation, draws, setting.space)
    return View(
        images=images,
        hard=data.labels[index],
        soft=None if data.soft is None else data.soft[index],
        soft_kind=data.soft_kind,
        mixing=mixing,
        soft_temperature=data.soft_temperature,
        num_classes=data.num_classes,
    )


def widened(logits: Tensor) -> Tensor:
    """Return logits as float32, or as float64 where they are."""
    import torch

    return logits if logits.dtype == torch.float64 else logits.float()


def _backward(network: nn.Module, view: View, training: Training, setting: Setting) -> Tensor:
    """Add a batch's gradients to the network's, and return its loss.

    With a `micro_batch` the batch passes through the network in parts, whose mean losses are weighted by
    their size: the same gradients as in one pass, but for networks whose batch norm sees smaller batches.
    """
    import torch

    targets = training.labels.component(view, setting.teachers)
    count = len(view.images)
    size = min(training.micro_batch or count, count)
    total = torch.zeros((), device=view.images.device)
    with tf32(setting.precision == "tf32"):
        for start in range(0, count, size):
            part = slice(start, start + size)
            with autocast(setting):
                logits = network(setting.execution.laid_out(view.images[part]))
            whole = size == count
            loss = training.loss.component(widened(logits), targets if whole else targets.part(part))
            if not whole:
                loss = loss * (len(logits) / count)
            torch.autograd.backward(loss)
            total = total + loss.detach()
    return total


def augment(
    images: Tensor, chain: Sequence[Chosen[Augmentation]], draws: Randomness, space: WorkingSpace
) -> tuple[Tensor, Mixing | None]:
    """Return images [B, C, H, W] of the working space after every augmentation of `chain`, and their mixing.

    Between two augmentations that work in [0, 1] nothing is normalised and taken back.
    """
    mixing: Mixing | None = None
    in_unit = False
    for chosen in chain:
        unit = getattr(chosen.component, "space", "normalised") == "unit"
        if unit != in_unit:
            images = space.to_unit(images) if unit else space.normalise(images)
            in_unit = unit
        out = chosen.component(images, draws)
        images, mixing = out.images, out.mixing or mixing
    return space.normalise(images) if in_unit else images, mixing


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
    What validation augmentations draw is the same in every call.
    """
    import torch

    draws = randomness(_VALIDATION_SEED, setting.device)

    was_training = network.training
    network.eval()
    parts: list[Tensor] = []
    size = evaluation_batch(data, setting.device)
    finite = torch.ones((), dtype=torch.bool, device=setting.device)
    with torch.inference_mode():
        for start in range(0, len(data), size):
            images, _ = augment(
                data.batch(slice(start, start + size)), setting.validation, draws, setting.space
            )
            logits = _ask(network, images, min(size, len(data)), setting.execution)
            finite &= logits.isfinite().all()
            parts.append(logits.argmax(dim=1))
        network.train(was_training)
        return torch.cat(parts) if finite.item() else None


def _ask(network: nn.Module, images: Tensor, size: int, execution: Execution) -> Tensor:
    """Return a network's logits of up to `size` images; a compiled one always sees as many as `size`.

    It would be compiled anew for the last few.
    """
    import torch

    missing = size - len(images) if execution.compiled else 0
    whole = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
    logits: Tensor = network(execution.laid_out(whole))
    return logits[: len(images)]


def evaluation_batch(data: ImageSet, device: torch.device) -> int:
    """Return how many images of this size a forward pass without gradients takes at once."""
    return max(16, _EVALUATION_PIXELS[device.type] // max(1, data.images[0].numel()))


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of predictions that equal the labels, both int64 [N], exactly rounded."""
    return int((predictions.cpu() == labels.cpu()).sum()) / len(labels)
