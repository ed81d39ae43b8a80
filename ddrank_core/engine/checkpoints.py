"""The weights of one network on disk: whatever people saved is read, and what is written says what it is."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import cattrs

from ddrank_core.errors import DataError, RunFailed, one_line

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_CHECKPOINT_BYTES = 8 << 30
FORMAT = "ddrank-teacher-1"

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
"""Keys under which training scripts keep the weights, beside the epoch and the optimiser."""
_PARALLEL = {"module", "_orig_mod"}
"""What DataParallel and torch.compile put into every name, or into those of the part that they wrap."""
_PREFIXES = ("model.", "network.", "net.", "backbone.")
_ALIASES = {"classifier": "fc", "linear": "fc", "head": "fc", "downsample": "shortcut"}
"""Other names of the same layer: the DC family's, kuangliu/pytorch-cifar's, timm's; the values are
torchvision's head and the DC family's shortcut."""


@attrs.frozen(kw_only=True)
class About:
    """What a checkpoint written here says about its network."""

    dataset: str
    class_names: tuple[str, ...]
    """In the order of the network's outputs."""
    mean: tuple[float, ...]
    """Per channel, of unit-range pixels: what its images are normalised with, unless they are whitened."""
    std: tuple[float, ...]
    whitening: float | None
    """The eps of the ZCA whitening of its images, or None."""
    network: Mapping[str, Any]
    """The architecture as a config writes it: `use` and parameters."""
    recipe: Mapping[str, Any] | None
    """How it was trained; None for weights that its library brought."""
    seed: int
    epoch: int
    """After how many of the recipe's epochs these weights were kept."""
    accuracy: float | None
    """On the whole test set, a fraction; None for a snapshot, which nobody tested."""
    key: str
    """SHA-256 of everything that determines the training."""
    weights: str
    """SHA-256 of the weights."""
    versions: Mapping[str, str]


def weights_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers, names included."""
    from hashlib import sha256

    whole = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


# Writing


def save_checkpoint(network: nn.Module, path: Path, about: About | None = None) -> None:
    """Write a network's weights; the file appears complete or not at all, one that exists is replaced.

    Raises:
        RunFailed: if it cannot be written.
    """
    from safetensors.torch import save

    state = {n: tensor.detach().cpu().contiguous().clone() for n, tensor in network.state_dict().items()}
    # One value: the library writes several in an order that differs from process to process.
    told = None if about is None else {FORMAT: json.dumps(attrs.asdict(about), sort_keys=True)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            whole = Path(folder) / path.name
            whole.write_bytes(save(state, metadata=told))
            os.replace(whole, path)
    except OSError as error:
        raise RunFailed(f"{path}: the teacher cannot be kept: {one_line(error)}") from error


# Reading


def read_about(path: Path) -> About | None:
    """Return what a checkpoint says about its network; None for one that was not written here.

    Raises:
        DataError: if it is ours, and what it says cannot be understood.
    """
    if path.suffix != ".safetensors":
        return None
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get(FORMAT)
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise DataError(f"{path}: cannot be read as a checkpoint ({one_line(error)})") from error
    if told is None:
        return None
    try:
        # The fields of a file that a later version wrote may be more; none of these may be missing.
        return cattrs.Converter().structure(json.loads(told), About)
    except Exception as error:
        raise DataError(f"{path}: its description is damaged, or of another version of ddrank") from error


def load_checkpoint(network: nn.Module, path: Path, where: str) -> None:
    """Read weights into `network`, in place.

    Takes a state dict, or a dict that holds one under a usual key (`state_dict`, `model`, `net`, ...). What
    parallel training and wrappers put before names is taken off, and layers go by the names of the DC
    family, torchvision or kuangliu/pytorch-cifar. Counters of batch norm may be missing. Nothing in the file
    is executed.

    Raises:
        DataError: one line, if the file cannot be read or belongs to another architecture.
    """
    own = network.state_dict()
    state = _renamed(_state_dict(_read(path, where), where, path), own)
    for name, tensor in own.items():
        # Only statistics with a momentum of None use it, and old versions of torch did not keep it.
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, tensor)
    mine = {name: tuple(tensor.shape) for name, tensor in own.items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if problem := _mismatch(mine, theirs):
        raise DataError(f"{where}: {path} is a checkpoint of another architecture: {problem}")
    if bad := next((n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()), None):
        raise DataError(f"{where}: {path}: {bad} holds NaN or infinite weights")
    network.load_state_dict(state)


class _Inert:
    """Stands in for what training scripts keep beside the weights; it does nothing and holds nothing."""

    def __init__(self, *_arguments: object) -> None: ...

    def __setstate__(self, _state: object) -> None: ...


_BESIDE = ("argparse.Namespace", "numpy.dtype", *(f"numpy.{c}.multiarray.scalar" for c in ("core", "_core")))
"""torchvision's reference training keeps its arguments, others their best accuracy as a numpy number."""


def _read(path: Path, where: str) -> Any:
    import torch

    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise DataError(f"{where}: {path} is larger than {MAX_CHECKPOINT_BYTES >> 30} GiB")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        allowed: list[Any] = [(_Inert, name) for name in _BESIDE]
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{where}: {path} holds more than weights, or is damaged, and was not opened; save a plain "
            "state_dict with torch.save"
        ) from error
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise DataError(f"{where}: {path} cannot be read as a checkpoint ({one_line(error)})") from error


def _state_dict(content: Any, where: str, path: Path) -> dict[str, Tensor]:
    import torch

    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if isinstance(content, list):
        raise DataError(
            f"{where}: {path} holds a list, as MTT's expert trajectories do, and not the weights of one "
            "network; save the state_dict of one"
        )
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{where}: {path} holds no state dict")
    if not all(isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in content.items()):
        raise DataError(f"{where}: {path} holds no state dict: not every entry is a tensor")
    return dict(content)


def _renamed(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under this network's names, as far as the usual differences go."""
    bare = {".".join(p for p in name.split(".") if p not in _PARALLEL): t for name, t in state.items()}
    if bare.keys() == own.keys():
        return bare
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in bare) and not any(name.startswith(prefix) for name in own):
            bare = {name.removeprefix(prefix): tensor for name, tensor in bare.items()}
    counts = Counter(map(_canonical, own))
    mine = {_canonical(name): name for name in own if counts[_canonical(name)] == 1}
    return {mine.get(_canonical(name), name): tensor for name, tensor in bare.items()}


def _canonical(name: str) -> str:
    return ".".join(_ALIASES.get(part, part) for part in name.split("."))


def _mismatch(mine: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]]) -> str | None:
    if missing := sorted(mine.keys() - theirs.keys()):
        return f"{len(missing)} tensors are missing, {missing[0]} first"
    if extra := sorted(theirs.keys() - mine.keys()):
        return f"it has {len(extra)} tensors more, {extra[0]} first"
    for name, shape in mine.items():
        if theirs[name] != shape:
            return f"{name} has shape {list(theirs[name])}, this network's has {list(shape)}"
    return None
