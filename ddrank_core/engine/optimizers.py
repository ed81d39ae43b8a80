"""The engine's optimisers. The learning rate is the protocol's, so none of them has one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from ddrank_core.spec import component, parameter

if TYPE_CHECKING:
    from torch import nn, optim


def _betas_fault(betas: tuple[float, float]) -> str | None:
    good = all(0 <= beta < 1 for beta in betas)
    return None if good else f"must be two numbers from 0 to below 1, got {list(betas)}"


DecayOn = Literal["all", "weights"]
_DECAY_ON = "weights: biases and norms decay not, as SRe2L and its followers train"


def _groups(parameters: Iterable[nn.Parameter], weight_decay: float, on: DecayOn) -> list[dict[str, Any]]:
    """Return torch's parameter groups; what is not decayed has one dimension: a bias, or of a norm.

    Source: VILA-Lab/SRe2L, train/train_FKD.py, get_parameters, whose choice by layer type comes to the same.
    """
    if on == "all":
        return [{"params": list(parameters), "weight_decay": weight_decay}]
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for weight in parameters:
        groups[weight.ndim > 1].append(weight)
    found = [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]
    return [group for group in found if group["params"]]


@component
class SGD:
    """Stochastic gradient descent with momentum and weight decay (L2, on every parameter)."""

    momentum: float = parameter("share of the last step that is kept", default=0.9, minimum=0, below=1)
    weight_decay: float = parameter("added to the gradient, times the weight", default=0.0005, minimum=0)
    decay_on: DecayOn = parameter(_DECAY_ON, default="all")
    nesterov: bool = parameter("look ahead along the momentum", default=False)

    def __attrs_post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """Return torch's SGD at `learning_rate`."""
        from torch.optim import SGD as TorchSGD

        return TorchSGD(
            _groups(parameters, self.weight_decay, self.decay_on),
            lr=learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            fused=True,
        )


@component
class Adam:
    """Adam with L2 weight decay. Source: Kingma & Ba 2015."""

    betas: tuple[float, float] = parameter(
        "decay of the two moment estimates", default=(0.9, 0.999), check=_betas_fault
    )
    eps: float = parameter("keeps the division finite", default=1e-8, above=0)
    weight_decay: float = parameter("added to the gradient, times the weight", default=0.0005, minimum=0)
    decay_on: DecayOn = parameter(_DECAY_ON, default="all")

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """Return torch's Adam at `learning_rate`."""
        from torch.optim import Adam as TorchAdam

        return TorchAdam(
            _groups(parameters, self.weight_decay, self.decay_on),
            lr=learning_rate,
            betas=self.betas,
            eps=self.eps,
            fused=True,
        )


@component
class AdamW:
    """Adam with decoupled weight decay. Source: Loshchilov & Hutter 2019."""

    betas: tuple[float, float] = parameter(
        "decay of the two moment estimates", default=(0.9, 0.999), check=_betas_fault
    )
    eps: float = parameter("keeps the division finite", default=1e-8, above=0)
    weight_decay: float = parameter("taken off the weight itself, times the rate", default=0.01, minimum=0)
    decay_on: DecayOn = parameter(_DECAY_ON, default="all")

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """Return torch's AdamW at `learning_rate`."""
        from torch.optim import AdamW as TorchAdamW

        return TorchAdamW(
            _groups(parameters, self.weight_decay, self.decay_on),
            lr=learning_rate,
            betas=self.betas,
            eps=self.eps,
            fused=True,
        )
