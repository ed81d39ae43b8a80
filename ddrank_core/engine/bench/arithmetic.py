"""How much arithmetic a network asks for, and how much the device can do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.engine.bench.laps import Laps, Spread
from ddrank_core.engine.bench.timing import in_workers
from ddrank_core.engine.device import tf32
from ddrank_core.engine.trial import Trainer

if TYPE_CHECKING:
    import torch
    from torch import nn

_SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
"""Of the square matrices that are multiplied; which is fastest depends on the caches and the cores."""
_COUNTED = 2
"""Images that are counted: batch norm cannot do with one."""


@attrs.frozen(kw_only=True)
class Peak:
    """The arithmetic that the device does in square matrix products, of the size that it is fastest at."""

    flops_per_second: Spread
    """In all processes together."""
    side: int
    workers: int
    """Processes that multiply at the same time."""
    threads: int | None
    """CPU threads of each; None on a GPU."""


def matmul_peak(trainer: Trainer, workers: int, budget: float) -> Peak:
    """Time products of two square matrices in the run's precision, in as many processes as train its trials.

    A single process has all threads that torch has now, several have one each, as in a run.
    """
    import torch

    device, bf16 = trainer.device, trainer.setting.precision == "bf16"
    dtype = torch.bfloat16 if bf16 else torch.float32
    sides = _SIDES[device.type]

    def work() -> list[list[float]]:
        with tf32(trainer.setting.precision == "tf32"):
            return [_products(device, dtype, side, budget / len(sides)) for side in sides]

    found = in_workers(workers, work)
    rates = {
        side: Spread.of([lap for one in found for lap in one[place]]).rate(2.0 * side**3 * workers)
        for place, side in enumerate(sides)
    }
    best = max(sides, key=lambda side: rates[side].median)
    threads = 1 if workers > 1 else torch.get_num_threads()
    return Peak(
        flops_per_second=rates[best],
        side=best,
        workers=workers,
        threads=None if device.type == "cuda" else threads,
    )


def _products(device: torch.device, dtype: torch.dtype, side: int, budget: float) -> list[float]:
    """Return the seconds of a product of random matrices [side, side], several times."""
    import torch

    source = torch.Generator(device=device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=source, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    laps = Laps(device, budget, least=5)
    laps.start()
    while not laps.enough:
        torch.mm(left, right, out=product)
        laps.tick()
    return laps.seconds


def training_flops(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """Return the FLOPs of one image [C, H, W], forward and backward, in convolutions and matrix products.

    A multiplication and an addition are two. The images need no gradient. Norms, activations and the
    optimiser are left out, as is common. `network` is on the CPU; its batch statistics are changed.
    """
    return _counted(network.train(), shape, backward=True)


def forward_flops(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """Return the FLOPs of asking a network on the CPU about one image [C, H, W]."""
    return _counted(network.eval(), shape, backward=False)


def _counted(network: nn.Module, shape: tuple[int, int, int], backward: bool) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    by_operation = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
    counter = FlopCounterMode(display=False, custom_mapping=by_operation)
    # Dropout and stochastic depth draw from the global generator.
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(backward), counter:
        logits = network(torch.zeros(_COUNTED, *shape))
        if backward:
            logits.sum().backward()
    return counter.get_total_flops() / _COUNTED


def _convolution_backward_flops(
    gradient: Sequence[int],
    images: Sequence[int],
    weight: Sequence[int],
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """Return the FLOPs of a convolution's gradients, from the shapes of its tensors.

    That of the images and that of the weight each take as many as the forward pass. torch's own formula
    counts the weight's as if there were no groups.
    """
    places = images if transposed else gradient
    forward = 2 * math.prod(places[2:]) * places[0] * math.prod(weight)
    return forward * sum(map(bool, output_mask[:2]))
