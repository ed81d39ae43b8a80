"""Records what a piece of work does to the device, once, and replays it: one launch instead of thousands."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from ddrank_core.errors import one_line

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

Work = Callable[[], None]
Tensors = Mapping[str, "Tensor"]

_MOST = 8
"""Recordings of one training. It has two to four: whole batches and the last one, mixed and unmixed."""


class NotRecorded(Exception):
    """Says in one line why work could not be recorded; nothing of it has been done."""


class Recorder(Protocol):
    """Makes recordings for one training, which share their memory."""

    def warm_up(self, work: Work) -> None:
        """Do work that is to be recorded the next time, so that all it needs has been set up."""
        ...

    def record(self, work: Work, generators: Sequence[Generator]) -> Work:
        """Return what does again, to the same memory, all that `work` does there; nothing is done yet.

        Draws are made anew at every replay, from the `generators` as they then are.

        Raises:
            NotRecorded: if it cannot be recorded; every recording of this training is lost then.
            torch.OutOfMemoryError: if the device's memory does not hold it.
        """
        ...

    def close(self) -> None:
        """Free the recordings and their memory."""
        ...


@attrs.define(eq=False)
class Capture:
    """With what, and how far, the steps of a kind of training are captured."""

    recorder: Callable[[], Recorder]
    """Called once for each training."""
    views: bool = True
    """Whether the making of views is captured with the steps; not where it takes draws of the host."""
    failed: str | None = None
    """Why nothing is captured, in one line."""


class Replays:
    """Does work again and again on other tensors of the same shapes: for one turn as it is, then replayed."""

    def __init__(self, recorder: Recorder, generators: Sequence[Generator]) -> None:
        self._recorder, self._generators = recorder, generators
        self._recorded: dict[Hashable, tuple[Tensors, Work]] = {}
        self._known: dict[Hashable, bool] = {}
        """What has been done; whether it is to be recorded when it is done again."""

    def __call__(self, work: Callable[[Tensors], None], inputs: Tensors, *about: Hashable) -> None:
        """Do `work` with the `inputs`, which it must not keep.

        `about` is what the work depends on beside its inputs' shapes.

        Raises:
            NotRecorded: if it cannot be recorded; nothing of it has been done.
        """
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in inputs.items())
        key = (*about, *shapes)
        if not self._known.setdefault(key, False):
            self._recorder.warm_up(partial(work, inputs))
            return
        if key not in self._recorded:
            self._record(key, work, inputs)
        buffers, replay = self._recorded[key]
        for name, buffer in buffers.items():
            buffer.copy_(inputs[name])
        replay()

    def turn(self) -> None:
        """Record from now on what has been done by now.

        Not sooner: a recording holds on to its memory, and work that is done as it is needs as much again.
        """
        self._known = {key: place < _MOST for place, key in enumerate(self._known)}

    def _record(self, key: Hashable, work: Callable[[Tensors], None], inputs: Tensors) -> None:
        buffers = {name: tensor.clone() for name, tensor in inputs.items()}
        try:
            replay = self._recorder.record(partial(work, buffers), self._generators)
        except NotRecorded:
            self._recorded.clear()
            self._known.clear()
            raise
        self._recorded[key] = buffers, replay

    def close(self) -> None:
        """Free all that was recorded."""
        self._recorded.clear()
        self._recorder.close()


class CudaGraphs:
    """Records CUDA graphs: every kernel that work launches, with the memory that it works on.

    Source: PyTorch's notes on CUDA semantics, "CUDA Graphs": warm-up and capture on one side stream, replay
    on any; one memory pool for graphs that never run at the same time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._pool: Any = None
        """torch's name for the memory that the graphs share."""

    def warm_up(self, work: Work) -> None:
        """Do the work on the side stream: what autograd and cuBLAS keep of it belongs to one stream."""
        import torch

        with torch.cuda.device(self._device):
            side, current = _side_stream(self._device), torch.cuda.current_stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                work()
            current.wait_stream(side)

    def record(self, work: Work, generators: Sequence[Generator]) -> Work:
        """Return the replay of a new graph."""
        import torch

        with torch.cuda.device(self._device):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            drawn = [*generators, torch.cuda.default_generators[torch.cuda.current_device()]]
            states, current = [one.clone_state() for one in drawn], torch.cuda.current_stream()
            graph = torch.cuda.CUDAGraph()
            self._graphs.append(graph)
            raised: list[Exception] = []
            try:
                _register(graph, generators)
                with torch.cuda.graph(graph, pool=self._pool, stream=_side_stream(self._device)):
                    _noting(work, raised)
            except Exception as error:  # components run in here, and CUDA says what it cannot do by raising
                # What ends the capture says only that it was broken, not by what.
                cause = raised[0] if raised else error
                torch.cuda.set_stream(current)
                self._recover(graph, drawn, states)
                _raise_if_out_of_memory(cause)
                raise NotRecorded(one_line(cause)) from cause
        return partial(_replay, graph)

    def close(self) -> None:
        """Free the graphs, and their memory for others."""
        import torch

        if not self._graphs:
            return
        # An error that has ended the training is what the user must hear of, not what it did to these.
        with suppress(RuntimeError):
            torch.cuda.synchronize(self._device)
            for graph in self._graphs:
                graph.reset()
            torch.cuda.empty_cache()
        self._graphs, self._pool = [], None

    def _recover(
        self, graph: torch.cuda.CUDAGraph, drawn: Sequence[Generator], states: Sequence[Generator]
    ) -> None:
        """Free all graphs, and undo what a capture that broke off leaves behind.

        Until torch 2.11 it leaves generators that think they are captured, and an allocator that waits for
        the capture's end and refuses to free anything (PyTorch #180395); and later ones may keep the memory
        that it had (PyTorch #190308).
        """
        import torch

        pool, ended = self._pool, _ended(graph)
        for generator, state in zip(drawn, states, strict=True):
            generator.graphsafe_set_state(state)
        for one in self._graphs:
            with suppress(RuntimeError):
                one.reset()
        for undo in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            # Each refuses where there is nothing left to undo.
            with suppress(RuntimeError, AttributeError, TypeError):
                if not ended:
                    getattr(torch._C, undo)(torch.cuda.current_device(), pool)
        self.close()


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the device's stream for captures: always the same one, since cuBLAS keeps memory for each."""
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _register(graph: torch.cuda.CUDAGraph, generators: Sequence[Generator]) -> None:
    with warnings.catch_warnings():
        # From torch 2.12 on a graph finds its generators by itself, and this may be called needless.
        warnings.simplefilter("ignore")
        for generator in generators:
            graph.register_generator_state(generator)


def _noting(work: Work, raised: list[Exception]) -> None:
    try:
        work()
    except Exception as error:
        raised.append(error)
        raise


def _ended(graph: torch.cuda.CUDAGraph) -> bool:
    """Return whether a capture came to its end, whatever was captured."""
    try:
        graph.pool()
    except RuntimeError:
        return False
    return True


def _replay(graph: torch.cuda.CUDAGraph) -> None:
    with _words_for_memory():
        graph.replay()


@contextmanager
def _words_for_memory() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        _raise_if_out_of_memory(error)
        raise


def _raise_if_out_of_memory(error: Exception) -> None:
    """Raise what torch's allocator raises, where CUDA itself had no memory for a graph."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():
        raise torch.OutOfMemoryError(str(error)) from error
