"""Keeps the state of a long training under way, so that one that was killed goes on where it was."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from ddrank_core.engine import device as devices
from ddrank_core.errors import RunFailed, one_line
from ddrank_core.store import cache_folder

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor, optim

CHECKPOINT_EVERY = 60.0
"""Seconds of training that a kill may cost. A training that is shorter writes nothing."""
_MOST_OF_THE_TIME = 0.01
"""The share of a training's time that its checkpoints may take: on a slow disk there are fewer of them."""
_FORMAT = 1
_DIGEST_BYTES = sha256().digest_size


# -- what a training changes -------------------------------------------------------------------


class Part(Protocol):
    """Something that a training changes from epoch to epoch."""

    def state(self) -> Any:
        """Return all that it has become, as tensors and plain values."""
        ...

    def restore(self, state: Any) -> None:
        """Become what `state` returned of its like in an earlier process."""
        ...


@attrs.frozen(eq=False)
class InPlace:
    """Tensors that are changed in place; who holds them, or a recording of what is done to them, sees it."""

    tensors: Sequence[Tensor]

    def state(self) -> list[Tensor]:
        """Return the tensors themselves."""
        return [tensor.detach() for tensor in self.tensors]

    def restore(self, state: Any) -> None:
        """Take on the values of other tensors of the same shapes."""
        import torch

        with torch.no_grad():
            for own, kept in zip(self.tensors, state, strict=True):
                own.copy_(kept)


@attrs.frozen(eq=False)
class Generators:
    """Generators of random numbers, on any device."""

    generators: Sequence[Generator]

    def state(self) -> list[Tensor]:
        """Return their states, uint8 on the CPU."""
        return [generator.get_state() for generator in self.generators]

    def restore(self, state: Any) -> None:
        """Let them draw next what those would have drawn."""
        for generator, kept in zip(self.generators, state, strict=True):
            generator.set_state(kept)


@attrs.frozen(eq=False)
class OfOptimizer:
    """What one of torch's optimisers remembers."""

    optimizer: optim.Optimizer

    def state(self) -> dict[str, Any]:
        """Return torch's own dictionary."""
        return self.optimizer.state_dict()

    def restore(self, state: Any) -> None:
        """Load torch's own dictionary."""
        self.optimizer.load_state_dict(state)


def global_generators(device: torch.device) -> list[Generator]:
    """Return torch's own generators that a network on `device` may draw from."""
    import torch

    if device.type != "cuda":
        return [torch.default_generator]
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]


# -- how it is kept ----------------------------------------------------------------------------


class Keeping:
    """Keeps one training, of a trial or of several at once, under the digests of what determines them.

    Whoever starts a training makes it, whoever trains says what is to be kept, with `begin`.
    """

    def __init__(
        self,
        keys: Sequence[str],
        resumed: Callable[[int], None] = lambda epoch: None,
        also: Mapping[str, Part] | None = None,
        latest: int | None = None,
    ) -> None:
        """Keep what is determined by `keys`.

        `resumed(epoch)` is called once if the training goes on from an earlier process, with the epoch that
        is done. `also` is kept beside what the training itself changes. A state of an epoch after `latest`
        is not gone on from: its caller still needs something of an earlier epoch.
        """
        self._keys, self._resumed, self._also, self._latest = tuple(keys), resumed, dict(also or {}), latest
        self._path = _folder() / f"{keys[0]}.pt"
        self._started = time.perf_counter()
        self._about: dict[str, Any] = {}
        self._parts: dict[str, Part] = {}
        self._epochs = 0
        self._device: torch.device | None = None
        self._due = 0.0
        self.seconds = 0.0
        """What earlier processes spent on the epochs that need not be done again."""
        self._is_readable = False
        self.failed: str | None = None
        """Why nothing is kept any more, in one line."""

    def begin(self, way: str, epochs: int, device: torch.device, parts: Mapping[str, Part]) -> int:
        """Bring `parts` to where an earlier process left them; return how many epochs it had done, or 0.

        `way` says how the networks are run. A state is only gone on from on the same kind of device, in the
        same way: in another one the next epochs would come out otherwise.
        """
        import torch

        self._parts, self._epochs, self._device = {**parts, **self._also}, epochs, device
        self._about = {
            "format": _FORMAT,
            "keys": self._keys,
            "epochs": epochs,
            "way": way,
            "device": devices.kind(device),
            "torch": str(torch.__version__),
        }
        done = self._go_on()
        self._due = time.perf_counter() + CHECKPOINT_EVERY
        return done

    def epoch_ended(self, epoch: int) -> None:
        """Keep the state at the end of an epoch, from 1, if the last one is a while ago.

        A failure, such as a full disk, does not stop the training: it goes on, and nothing more is kept.
        """
        if self.failed is not None or epoch == self._epochs or time.perf_counter() < self._due:
            return
        self._wait_for_device()
        clock = time.perf_counter()
        try:
            self._keep(epoch)
        except Exception as error:  # a full disk; or the state of somebody's optimiser that cannot be written
            self.failed = f"{self._path.parent}: {one_line(error)}"
        now = time.perf_counter()
        self._due = now + max(CHECKPOINT_EVERY, (now - clock) / _MOST_OF_THE_TIME)

    def _go_on(self) -> int:
        found = _read(self._path)
        if found is None or found["about"] != self._about:
            return 0
        epoch: int = found["epoch"]
        if self._latest is not None and epoch > self._latest:
            return 0
        try:
            for name, part in self._parts.items():
                part.restore(found["parts"][name])
        except Exception as error:  # an optimiser of a plugin may not take back what it gave
            self._path.unlink(missing_ok=True)
            raise RunFailed(
                f"{self._path}: the training cannot go on from here ({one_line(error)}); the file is "
                "removed, run again to start it anew"
            ) from error
        self.seconds = found["seconds"]
        self._resumed(epoch)
        return epoch

    def _keep(self, epoch: int) -> None:
        import torch

        content = io.BytesIO()
        state = {
            "about": self._about,
            "epoch": epoch,
            "seconds": self.seconds + time.perf_counter() - self._started,
            "parts": {name: part.state() for name, part in self._parts.items()},
        }
        torch.save(state, content)
        if not self._is_readable:
            # Once is enough to know what kinds of objects there are.
            torch.load(io.BytesIO(content.getbuffer()), map_location="cpu", weights_only=True)
            self._is_readable = True
        _write(self._path, content.getbuffer())

    def _wait_for_device(self) -> None:
        """Wait for the steps that are still queued: their time is not the checkpoint's."""
        import torch

        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def forget(keys: Sequence[str]) -> None:
    """Remove what is kept of trainings of these keys, however they were trained together: they are stored."""
    for key in keys:
        for path in _folder().glob(f"{key}.*"):
            path.unlink(missing_ok=True)


def _folder() -> Path:
    return cache_folder() / "unfinished"


# A file is the SHA-256 of its content, then the content as torch writes it. Torch itself does not notice a
# changed byte.


def _read(path: Path) -> Any:
    """Return what a file keeps; None where there is none, or it is damaged or no such file."""
    import torch

    try:
        with path.open("rb") as file:
            digest, content = file.read(_DIGEST_BYTES), file.read()
    except OSError:
        return None
    if sha256(content).digest() != digest:
        return None
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # of another torch, which knows other objects to be safe
        return None


def _write(path: Path, content: memoryview) -> None:
    """Write a file whole or not at all; one that is there is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}.", suffix=".part")
    part = Path(name)
    try:
        with open(handle, "wb") as file:
            file.write(sha256(content).digest())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
