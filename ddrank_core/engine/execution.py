"""How a student is run, one trial at a time: as it is, compiled, with its channels last in memory."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_GRAPHS = 64
"""Shapes that one student may be compiled for. A run has two to four; torch gives up at 8."""


@attrs.frozen(kw_only=True)
class Execution:
    """A way to run a student: it changes the speed and the order of sums, and nothing else."""

    compiled: bool = False
    """By torch.compile."""
    channels_last: bool = False
    """Weights and feature maps lie in memory as [N, H, W, C]."""

    def __str__(self) -> str:
        said = {"compiled": self.compiled, "channels last": self.channels_last}
        return ", ".join(name for name, holds in said.items() if holds) or "as it is"

    def laid_out(self, images: Tensor) -> Tensor:
        """Return images [B, C, H, W] as they lie in memory for the student."""
        # A compiled student is bound to one layout, whatever an augmentation has made of the images.
        return images if self == AS_IT_IS else images.contiguous(memory_format=self._layout())

    def ready(self, network: nn.Module) -> nn.Module:
        """Return the network with its weights laid out."""
        return network if self == AS_IT_IS else network.to(memory_format=self._layout())

    def _layout(self) -> torch.memory_format:
        import torch

        return torch.channels_last if self.channels_last else torch.contiguous_format


AS_IT_IS = Execution()


class Resident:
    """A student that is compiled once, and takes on the weights of one trial after the other."""

    def __init__(self, network: nn.Module) -> None:
        import torch

        _set_up()
        self._network = network
        # Its forward and not the module: of torch's own containers older versions silently compile nothing.
        # fullgraph: better not compiled than in pieces.
        network.forward = torch.compile(network.forward, fullgraph=True, dynamic=False)

    def become(self, fresh: nn.Module) -> nn.Module:
        """Return the compiled network with the weights and buffers of `fresh`, without gradients."""
        import torch

        with torch.no_grad():
            for own, other in (
                *zip(self._network.parameters(), fresh.parameters(), strict=True),
                *zip(self._network.buffers(), fresh.buffers(), strict=True),
            ):
                own.copy_(other)
        self._network.zero_grad(set_to_none=True)
        return self._network.train(fresh.training)


_COMPILED_HERE = False


def compiled_here() -> bool:
    """Return whether this process has compiled a network: it has threads then, and must not be forked."""
    return _COMPILED_HERE


def _set_up() -> None:
    """Let torch compile in this process, for many shapes, with the draws that it has uncompiled."""
    import torch
    import torch._dynamo.config
    import torch._inductor.config

    # It warns of a CUDA toolkit without a GPU, which is no concern of a CPU's.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    global _COMPILED_HERE
    _COMPILED_HERE = True
    torch._inductor.config.compile_threads = 1
    # Named, because the cache of older torch would else give out kernels of another number of threads.
    torch._inductor.config.cpp.threads = torch.get_num_threads()
    torch._inductor.config.fallback_random = True
    torch._dynamo.config.recompile_limit = _GRAPHS
