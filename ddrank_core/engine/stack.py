"""The weights of many networks in one tensor each, and two ways to run them all in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class Stack:
    """The parameters and buffers of T networks of one kind, each as one tensor [T, ...].

    Until `release` the networks are views of it: each is at every moment what it has been trained to.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        import torch

        self.networks = tuple(networks)
        self.parameters: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, first in networks[0].named_parameters():
                stacked = _stacked([network.get_parameter(name) for network in networks])
                self.parameters[name] = stacked.requires_grad_(first.requires_grad)
            for name, _ in networks[0].named_buffers():
                self.buffers[name] = _stacked([network.get_buffer(name) for network in networks])

    @property
    def trained(self) -> list[Tensor]:
        """Return the stacked parameters that are trained."""
        return [weight for weight in self.parameters.values() if weight.requires_grad]

    def release(self) -> None:
        """Give every network memory of its own again."""
        for network in self.networks:
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.data = tensor.data.clone()


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    import torch

    stacked = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, own in zip(tensors, stacked.detach().unbind(), strict=True):
        tensor.data = own
    return stacked


class Vmapped:
    """Runs any network that torch.func can batch.

    Networks that draw random numbers in their forward pass are refused: those would not be their own.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def __call__(self, images: Tensor) -> Tensor:
        """Return each network's logits [T, B, K] for its own images [T, B, C, H, W]."""
        from torch.func import functional_call, vmap

        template = self._stack.networks[0]

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
            logits: Tensor = functional_call(template, (parameters, buffers), (images,))
            return logits

        batched = vmap(one, randomness="error")
        logits: Tensor = batched(self._stack.parameters, self._stack.buffers, images)
        return logits
