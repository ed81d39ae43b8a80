"""A run as it travels to other machines: its data once for each of them, its components by their names.

Tensors become arrays, which lie in Ray's object store and are mapped into every worker of a machine: no copy
for each worker, and none for each task. Components are made again from the plugins there (`Chosen`), with the
same choice of plugins and the same one-off files. What lies in mapped files, because it is larger than a
machine would hold, is opened there by its path.
"""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core import __version__, plugin_choice
from ddrank_core.engine.prepared import Prepared
from ddrank_core.errors import DataError
from ddrank_core.image_cache import MAX_UNPREPARED_BYTES
from ddrank_core.protocols import Dataset
from ddrank_core.sources import source_digest
from ddrank_core.structure import Chosen
from ddrank_core.types import RealData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_LIBRARIES = ("torch", "torchvision", "timm", "kornia")
"""Whose versions determine a result, beside the plugins'."""


@attrs.frozen(eq=False)
class Bundle:
    """Something pickled, with the tensors in it as arrays beside it."""

    content: bytes
    buffers: Sequence[Any]
    """uint8 arrays; where Ray hands them out, they are its object store's memory, and read-only."""

    def open(self) -> Any:
        """Return what was packed; tensors share the buffers' memory.

        Raises:
            DDRankError: one line, if a component or a file is not here as it was there.
        """
        return pickle.loads(self.content, buffers=self.buffers)


def pack(value: object) -> Bundle:
    """Return a value as a bundle; its tensors come out of it on the CPU."""
    import numpy as np

    stream, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _pickler()(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    return Bundle(stream.getvalue(), [np.frombuffer(buffer.raw(), dtype=np.uint8) for buffer in buffers])


def pack_run(prepared: Prepared) -> Bundle:
    """Return a prepared run as a bundle; opened, it is one for the CPU."""
    import torch

    real, views, cpu = prepared.real, prepared.views, torch.device("cpu")
    travelling: Any = _Mapped(prepared.config.dataset, real.digest) if _is_mapped(real) else real
    if views is not None:
        views = attrs.evolve(views, path=views.path.absolute())
    return pack(
        attrs.evolve(prepared, device=cpu, space=prepared.space.to(cpu), real=travelling, views=views)
    )


def open_run(bundle: Bundle, device: torch.device) -> Prepared:
    """Return the run of a bundle, for a device of this machine.

    Raises:
        DDRankError: one line, if a component or a file is not here as it was there.
    """
    found: Prepared = bundle.open()
    real: Any = found.real
    if isinstance(real, _Mapped):
        real = real.opened()
    if found.views is not None and not found.views.path.is_file():
        raise DataError(f"{found.views.path}: no such file here; workers read stored views at the same path")
    return attrs.evolve(found, device=device, space=found.space.to(device), real=real)


@attrs.frozen(eq=False)
class _Mapped:
    """A real data set that each machine opens from files of its own."""

    dataset: Chosen[Dataset]
    digest: str | None

    def opened(self) -> RealData:
        real = self.dataset.component.load()
        if real.digest != self.digest:
            raise DataError(f"dataset {self.dataset.use}: its files here are others than where the run is")
        return real


def _is_mapped(real: RealData) -> bool:
    """Return whether a data set is mapped from files: it is too large to be decoded at every load."""
    size = sum(images.numel() * images.element_size() for images in (real.train_images, real.test_images))
    return real.digest is not None and size > MAX_UNPREPARED_BYTES


def _pickler() -> type[pickle.Pickler]:
    """Return a pickler that takes tensors for arrays; networks may have what only cloudpickle takes."""
    import torch
    from ray import cloudpickle

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # ray is typed nowhere
        def reducer_override(self, value: Any) -> Any:
            if type(value) is torch.Tensor:
                return _tensor, (value.detach().cpu().contiguous().numpy(),)
            return super().reducer_override(value)

    return Pickler


def _tensor(array: Any) -> Tensor:
    import torch

    with warnings.catch_warnings():
        # Nothing writes to a run's data: a component that did would end its worker, and not change results.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


# -- what is around a run ----------------------------------------------------------------------


@attrs.frozen
class Surroundings:
    """What of the process that drives a run has to hold for its workers too."""

    only: tuple[str, ...]
    without: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]
    """One-off plugin files: path and content."""
    environment: Mapping[str, str]
    folder: str
    """Where relative paths of the config start."""


def surroundings() -> Surroundings:
    """Return this process's."""
    choice = plugin_choice.asked()
    kept = (plugin_choice.ENVIRONMENT, "DDRANK_CACHE")
    return Surroundings(
        only=choice.only,
        without=choice.without,
        files=tuple((str(path.resolve()), path.read_bytes()) for path in choice.files),
        environment={name: os.environ[name] for name in kept if name in os.environ},
        folder=os.getcwd(),
    )


def settle(there: Surroundings) -> AbstractContextManager[None]:
    """Make this process like that one, for the rest of its life; plugins are chosen inside the context."""
    os.environ.update(there.environment)
    if os.path.isdir(there.folder):
        os.chdir(there.folder)
    files = tuple(_file(Path(path), content) for path, content in there.files)
    return plugin_choice.using(plugin_choice.Choice(there.only, there.without, files))


def _file(path: Path, content: bytes) -> Path:
    """Return a file with that name and content: the very one where this machine sees it, else a copy."""
    if path.is_file() and path.read_bytes() == content:
        return path
    copy = Path(tempfile.mkdtemp(prefix="ddrank-plugin-")) / path.name
    copy.write_bytes(content)
    return copy


def versions() -> dict[str, str]:
    """Return what has to be equal wherever a run's trials are trained: name -> version.

    A build's own suffix (`2.8.0+cu128`) may differ: the machine that drives a run needs no GPU.
    """
    found = {name: metadata.version(name).partition("+")[0] for name in _LIBRARIES}
    return {"ddrank": f"{__version__} ({(source_digest(Bundle) or '')[:12]})", **found}
