"""Finds out whether trials of a kind can be trained at once."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs

from ddrank_core.engine.capture import Capture, Recorder
from ddrank_core.engine.cohort import SLOW, backward, train_cohort
from ddrank_core.engine.cohort_views import batch
from ddrank_core.engine.folded import Folded
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.plan import Training, replays_views
from ddrank_core.engine.seed import derive, generator
from ddrank_core.engine.stack import Stack, Vmapped
from ddrank_core.engine.stacked_optimizers import stacked_optimizer
from ddrank_core.engine.train import Setting, epoch_views, widened
from ddrank_core.errors import one_line
from ddrank_core.protocols import Teachers
from ddrank_core.types import View

if TYPE_CHECKING:
    from torch import Tensor, nn

_TOLERANCE = 1e-9
_TRIED_IMAGES, _TRIED_RATES = 8, (1e-4, 2e-4)
_CAPTURED_TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
_CAPTURED_RATES, _CAPTURED_SEEDS = (1e-3, 2e-3, 5e-3), (0, 0, 1)
"""Of three trials, two of which share their views."""
_CAPTURED_EPOCHS = 5
"""The first tries to make views on the device alone, the second is done as it is where that cannot be, the
third is recorded; a number that was frozen then is seen in the fourth."""


@attrs.frozen(kw_only=True)
class Probe:
    """Whether trials of a kind can be trained at once, and how."""

    reason: str | None
    """One line that says why they cannot, or None."""
    folded: bool = False
    """Whether the networks may run as one wide network."""
    slow: tuple[str, ...] = ()
    """Operations that torch cannot batch, and computes trial by trial."""
    capture: Capture | None = None
    """How the steps are captured on CUDA; None where nobody would."""


def probe(network: nn.Module, training: Training, sample: ImageSet, setting: Setting) -> Probe:
    """Try two trials at once and one by one, in float64 on copies and a few images, and compare.

    The copies differ in their weights, images, labels, rates and draws. They take two steps at a small rate,
    and their weights and buffers must agree to 1e-9. Teachers are replaced by a function of float64.
    """
    import torch

    tried, data = _tried(training), _data(sample)
    setting = attrs.evolve(setting, precision="fp32", teachers=_stand_ins(setting, data[0]))
    with torch.random.fork_rng(devices=[setting.device] if setting.device.type == "cuda" else []):
        pair = _pair(network, setting)
        try:
            expected = [_alone(one, tried, data[trial], trial, setting) for trial, one in enumerate(pair)]
        except Exception as error:  # the plugin boundary: components run in here
            return Probe(reason=f"it cannot be checked in float64: {one_line(error)}")
        found = _compare(_pair(network, setting), tried, data, setting, expected, folded=True)
        if found.reason is not None:
            found = _compare(_pair(network, setting), tried, data, setting, expected, folded=False)
        return found


def try_capture(
    network: nn.Module,
    training: Training,
    sample: ImageSet,
    setting: Setting,
    folded: bool,
    recorder: Callable[[], Recorder],
) -> Capture:
    """Return how a cohort's steps can be captured: tried on copies and a few images, and compared.

    In the training's own precision, with its teachers; with a last batch that is smaller, if there are
    enough images. What comes out must agree to float32's rounding with what comes out uncaptured.
    """
    import torch

    tried, few = _captured_training(training, len(sample)), sample.part(_first(sample))
    train = partial(_throwaway, network, few, tried, setting, folded)
    capture = Capture(recorder)
    with torch.random.fork_rng(devices=[setting.device] if setting.device.type == "cuda" else []):
        try:
            expected = train(None)
            fault = _difference(expected, train(capture))
            if fault is not None and capture.views:
                capture = Capture(recorder, views=False)
                fault = _difference(expected, train(capture))
        except Exception as error:  # the plugin boundary: components run in here, and so does CUDA
            fault = one_line(error)
    capture.failed = capture.failed or fault
    return capture


def _captured_training(training: Training, count: int) -> Training:
    """Return a short training: with two sizes of batches, and of their parts, if there are enough images."""
    whole = count < _TRIED_IMAGES
    parts = None if whole or training.micro_batch is None else 3
    return attrs.evolve(
        training, epochs=_CAPTURED_EPOCHS, batch_size=max(count, 1) if whole else 5, micro_batch=parts
    )


def _first(sample: ImageSet) -> Tensor:
    import torch

    return torch.arange(min(_TRIED_IMAGES, len(sample)), device=sample.labels.device)


def _throwaway(
    network: nn.Module,
    few: ImageSet,
    training: Training,
    setting: Setting,
    folded: bool,
    capture: Capture | None,
) -> list[list[Tensor]]:
    """Return the weights and buffers of copies of a network after a training at once."""
    networks = [copy.deepcopy(network).to(setting.device) for _ in _CAPTURED_RATES]
    count = len(networks)
    train_cohort(
        networks,
        [few] * count,
        training,
        _CAPTURED_RATES,
        _CAPTURED_SEEDS,
        setting,
        lambda epoch: None,
        folded,
        capture,
    )
    return [_state(one) for one in networks]


def _difference(expected: Sequence[Sequence[Tensor]], found: Sequence[Sequence[Tensor]]) -> str | None:
    """Return in words how far two lists of networks' weights and buffers are apart, or None."""
    import torch

    pairs = [pair for one in zip(expected, found, strict=True) for pair in zip(*one, strict=True)]
    if all(torch.allclose(one, other, **_CAPTURED_TOLERANCE, equal_nan=True) for one, other in pairs):
        return None
    largest = max(
        (one.double() - other.double()).abs().nan_to_num(torch.inf).max().item() for one, other in pairs
    )
    return f"captured, its weights or buffers come out differently, by up to {largest:.1g}"


def _tried(training: Training) -> Training:
    """Return a training of two steps on all of the few images: batch norm blows rounding up on fewer."""
    return attrs.evolve(training, epochs=2, batch_size=_TRIED_IMAGES, micro_batch=None)


def _data(sample: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Return a few images of a set, and others made of them."""
    few = _few(sample)
    soft = None if few.soft is None else 0.9 * few.soft + 0.1 / few.num_classes
    other = attrs.evolve(few, images=0.9 * few.images.flip(0), labels=few.labels.roll(1), soft=soft)
    return few, other


def _few(sample: ImageSet) -> ImageSet:
    """Return the first images of a set, and its views' labels as if each were shown as it is, in float64."""
    few = slice(0, _TRIED_IMAGES)
    images, soft, kind = sample.batch(few).double(), sample.soft, sample.soft_kind
    if sample.views is not None and sample.views_are_labelled:
        kind = sample.views.soft_kind
        soft = images.new_full((len(images), sample.num_classes), 1 / sample.num_classes)
    return ImageSet(
        images=images,
        labels=sample.labels[few],
        soft=None if soft is None else soft[few].double(),
        soft_kind=kind,
        soft_temperature=sample.soft_temperature,
        num_classes=sample.num_classes,
    )


def _stand_ins(setting: Setting, few: ImageSet) -> Teachers:
    """Return as many teachers as there are, that work in float64 and image by image."""
    import torch

    count = len(setting.teachers(few.images[:1].float()))
    size = (count, few.images[0].numel(), few.num_classes)
    weights = torch.randn(size, generator=generator(0), dtype=torch.float64).to(setting.device)
    return lambda images: tuple(images.flatten(1) @ weight for weight in weights)


def _pair(network: nn.Module, setting: Setting) -> list[nn.Module]:
    """Return two copies in float64, the second with other weights."""
    import torch

    pair = [copy.deepcopy(network).to(setting.device).double().train() for _ in range(2)]
    source = generator(0)
    with torch.no_grad():
        for weight in pair[1].parameters():
            noise = torch.randn(weight.shape, generator=source, dtype=torch.float64).to(setting.device)
            weight.add_(0.1 * (weight.abs() + 0.1) * noise)
    return pair


def _views(training: Training, few: ImageSet, trial: int, setting: Setting) -> Iterator[View]:
    if not replays_views(training):
        return (view for epoch in epoch_views(few, training, trial, setting) for view in epoch)
    view = View(few.images, few.labels, few.soft, few.soft_kind, num_classes=few.num_classes)
    return iter([view])


def _alone(
    network: nn.Module, training: Training, few: ImageSet, trial: int, setting: Setting
) -> list[Tensor]:
    """Train one network as `train` does; return its weights and buffers."""
    import torch

    torch.manual_seed(derive(trial, "forward"))
    optimizer = training.optimizer.component.build(network.parameters(), _TRIED_RATES[trial])
    for view in _views(training, few, trial, setting):
        optimizer.zero_grad()
        targets = training.labels.component(view, setting.teachers)
        loss = training.loss.component(widened(network(view.images)), targets)
        torch.autograd.backward(loss)
        optimizer.step()
    return _state(network)


def _state(network: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*network.parameters(), *network.buffers())]


def _compare(
    pair: Sequence[nn.Module],
    training: Training,
    data: Sequence[ImageSet],
    setting: Setting,
    expected: Sequence[Sequence[Tensor]],
    folded: bool,
) -> Probe:
    """Train the pair at once and say whether it comes out as expected."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = _together(pair, training, data, setting, folded)
    except Exception as error:  # what torch cannot batch it says by raising, and components run in here
        return Probe(reason=_worded(error))
    pairs = [
        tensors
        for one, other in zip(expected, found, strict=True)
        for tensors in zip(one, other, strict=True)
    ]
    if not all(_close(one, other) for one, other in pairs):
        return Probe(reason="trained at once, its weights or buffers come out differently than alone")
    texts = [str(warning.message) for warning in caught]
    slow = {text.removeprefix(SLOW).split(". ")[0] for text in texts if text.startswith(SLOW)}
    return Probe(reason=None, folded=folded, slow=tuple(sorted(slow)))


def _together(
    pair: Sequence[nn.Module], training: Training, data: Sequence[ImageSet], setting: Setting, folded: bool
) -> list[list[Tensor]]:
    import torch

    stack = Stack(pair)
    forward = Folded(stack) if folded else Vmapped(stack)
    optimizer = stacked_optimizer(training.optimizer.component, stack.trained)
    optimizer.set_rates(torch.tensor(_TRIED_RATES, dtype=torch.float64))
    where = torch.arange(len(pair), device=setting.device)
    streams = [_views(training, data[trial], trial, setting) for trial in range(len(pair))]
    for views in zip(*streams, strict=True):
        backward(forward, *batch(views, where, training, setting), training, setting)
        optimizer.step()
    return [_state(network) for network in pair]


def _close(one: Tensor, other: Tensor) -> bool:
    import torch

    return torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)


def _worded(error: Exception) -> str:
    text = one_line(error)
    if isinstance(error, ValueError):
        return text.removeprefix("ValueError: ")
    if "random" in text and "vmap" in text:
        return "its forward pass draws random numbers (dropout), which must be those of each trial's own seed"
    return (
        f"torch cannot batch it: {text.removeprefix('RuntimeError: ').removeprefix('vmap: ').split('. ')[0]}"
    )
