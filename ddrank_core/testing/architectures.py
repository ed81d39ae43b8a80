"""Checks of an architecture."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from ddrank_core.testing.case import Case, ContractBroken, Shape, call, hold, refusal
from ddrank_core.testing.observed import (
    copies,
    devices,
    hold_close,
    hold_same,
    hold_untouched,
    is_like,
    known_generators,
    shown,
)

CLASSES = 5
_SIDES = (8, 16, 32, 64, 128, 256)
_FINITE = "gradients are finite, and reach the weights"


def build(case: Case, shape: Shape) -> nn.Module:
    """Return a network as the engine builds it, always from the same global state."""
    with known_generators():
        network: nn.Module = case.component.build(CLASSES, shape)
    return network


@lru_cache(maxsize=1)
def network_of(case: Case) -> tuple[nn.Module, Shape]:
    """Return a network, not to be changed, for the first shape claimed, or the smallest that it takes.

    Building takes the longest, so that the checks of a component share it and work on copies.
    """
    sizes = case.shapes[:1] or tuple((3, side, side) for side in _SIDES)
    for shape in sizes:
        network, refused = refusal(
            f"building for images of {_size(shape)}", partial(build, case, shape), ValueError
        )
        if network is not None:
            hold(isinstance(network, nn.Module), f"build returned {shown(network)}, not an nn.Module")
            return network, shape
    claimed = "claims to take" if case.shapes else "takes no"
    raise ContractBroken(
        f"{claimed} images of {_size(sizes[-1])}: {refused}; say in image_shapes which it takes"
    )


def _size(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def pictures(shape: Shape, count: int = 2) -> Tensor:
    """Return normalised images."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def _hold_logits(network: nn.Module, shape: Shape) -> None:
    images = pictures(shape)
    with torch.no_grad():
        logits = call(f"the network of images of {_size(shape)}", network.eval(), images)
    hold(
        is_like(logits, torch.float32, (len(images), CLASSES)) and bool(logits.isfinite().all()),
        f"gives {shown(logits)} for images {shown(images)} and {CLASSES} classes; "
        f"a network gives finite float32 logits [B, {CLASSES}]",
    )


def takes_image_shapes(case: Case) -> None:
    network, first = network_of(case)
    _hold_logits(deepcopy(network), first)
    for shape in case.shapes[1:]:
        built, refused = refusal(
            f"building for images of {_size(shape)}", partial(build, case, shape), ValueError
        )
        hold(refused is None, f"claims to take images of {_size(shape)}, and refuses them: {refused}")
        _hold_logits(built, shape)


def refuses_other_shapes(case: Case) -> None:
    """Grey images, and images of one pixel, are taken or refused in one line."""
    _, (channels, height, width) = network_of(case)
    for shape in ((1, height, width), (channels, 1, 1)):
        network, _ = refusal(
            f"building for images of {_size(shape)}", partial(build, case, shape), ValueError
        )
        if network is not None:
            _hold_logits(network, shape)


def keeps_device_and_dtype(case: Case) -> None:
    network, shape = network_of(case)
    hold(network.training, "build returned a network in evaluation mode; it is handed over in training mode")
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        hold(
            tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.int64, torch.bool),
            f"its {name} is {shown(tensor)}; build returns float32 weights on the CPU",
        )
    for device in devices():
        for dtype in (torch.float32, torch.float64):
            copied, images = deepcopy(network).to(device, dtype).eval(), pictures(shape).to(device, dtype)
            with torch.no_grad():
                logits = call(f"the network of {shown(images)}", copied, images)
            hold(
                is_like(logits, dtype, (len(images), CLASSES), device),
                f"gives {shown(logits)} for images {shown(images)}, after network.to(device, dtype); "
                "make tensors in forward with the device and dtype of the images",
            )


def _step(network: nn.Module, images: Tensor, seed: int = 1) -> Tensor:
    """Return the logits of a forward pass in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        logits: Tensor = call(f"a training step on {shown(images)}", network.train(), images)
    return logits


def leaves_input(case: Case) -> None:
    network, shape = network_of(case)
    images = pictures(shape)
    _step(deepcopy(network), images)
    hold(
        torch.equal(images, pictures(shape)),
        "its forward pass edits the images; work on a copy",
    )


def same_seed(case: Case) -> None:
    network, shape = network_of(case)
    asked = "the same seed of torch's global generator gives the same initial weights"
    hold_same(network, build(case, shape), "a weight", asked)
    copied = deepcopy(network).eval()
    with torch.no_grad():
        first, again = copied(pictures(shape)), copied(pictures(shape))
    hold(
        torch.equal(first, again),
        "gives other logits for the same images in evaluation mode, where nothing is drawn",
    )


def leaves_generators(case: Case) -> None:
    network, shape = network_of(case)
    copied, images = deepcopy(network), pictures(shape)
    drawn = "weights and dropout draw from torch's global generator alone, which the engine seeds"
    hold_untouched(partial(case.component.build, CLASSES, shape), drawn, ("random", "numpy"))
    hold_untouched(partial(_step, copied, images), drawn, ("random", "numpy"))
    hold_untouched(partial(copied.eval(), images), "nothing is drawn in evaluation mode")


def finite_gradients(case: Case) -> None:
    network, shape = network_of(case)
    copied, images = deepcopy(network), pictures(shape)
    loss = nn.functional.cross_entropy(_step(copied, images), torch.tensor([0, 1]))
    call("a step backwards", lambda: torch.autograd.backward(loss))
    gradients = {name: weight.grad for name, weight in copied.named_parameters() if weight.grad is not None}
    bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    hold(not bad, f"the gradient of its {', '.join(bad[:3])} is not finite in a first step; {_FINITE}")
    reached = any(bool(gradient.any()) for gradient in gradients.values())
    hold(reached, f"no weight of it has a gradient in a first step; {_FINITE}")


def agrees_with_reference(case: Case) -> None:
    """Give the reference's network the component's weights, in their order, and compare the logits."""
    network, shape = network_of(case)
    reference: nn.Module = case.expected(CLASSES, shape)
    mine, theirs = copies(network), copies(reference)
    sizes = [[list(tensor.shape) for tensor in state.values()] for state in (mine, theirs)]
    hold(
        sizes[0] == sizes[1],
        f"has {len(mine)} weights and buffers of other shapes, or in another order, than the reference's "
        f"{len(theirs)}; the first is {_first_difference(*sizes)}",
    )
    reference.load_state_dict(dict(zip(theirs, mine.values(), strict=True)))
    images = pictures(shape, 4)
    with torch.no_grad():
        expected, found = reference.eval()(images), deepcopy(network).eval()(images)
    hold_close(expected, found, f"for images {shown(images)}")


def _first_difference(mine: list[list[int]], theirs: list[list[int]]) -> str:
    pairs: Iterator[tuple[list[int], list[int]]] = zip(mine, theirs, strict=False)
    return next((f"{a} here and {b} there" for a, b in pairs if a != b), "one more on one side")
