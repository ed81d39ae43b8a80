"""Teachers: read from a checkpoint, or trained on the whole real training set and cached."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.config import Teacher
from ddrank_core.errors import DataError, RunFailed, one_line
from ddrank_core.protocols import Teachers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MAX_CHECKPOINT_BYTES = 8 << 30


@attrs.frozen(eq=False, kw_only=True)
class ReadyTeacher:
    """A teacher that can be asked, and where its weights are from."""

    use: str
    network: nn.Module
    source: str
    """`trained here`, `cache` or the checkpoint's path."""
    digest: str
    """SHA-256 of the weights."""


def asker(networks: Sequence[nn.Module]) -> Teachers:
    """Return a function: normalised images [B, C, H, W] -> each network's logits [B, K], no gradients."""
    import torch

    def ask(images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(network(images).float() for network in networks)

    return ask


def freeze(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network on the device, in evaluation mode and without gradients."""
    return network.to(device).eval().requires_grad_(False)


def weights_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers, names included."""
    from hashlib import sha256

    whole = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


def load_checkpoint(network: nn.Module, path: Path, where: str) -> None:
    """Read weights into `network`, in place.

    Takes a state dict, or a dict that holds one under `state_dict`, `model` or `net`; the `module.`
    prefix of parallel training is taken off. Nothing in the file is executed.

    Raises:
        DataError: one line, if the file cannot be read or belongs to another architecture.
    """
    state = _state_dict(_read(path, where), where, path)
    mine = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if problem := _mismatch(mine, theirs):
        raise DataError(f"{where}: {path} is a checkpoint of another architecture: {problem}")
    if bad := next((n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()), None):
        raise DataError(f"{where}: {path}: {bad} holds NaN or infinite weights")
    network.load_state_dict(state)


def _read(path: Path, where: str) -> Any:
    import torch

    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise DataError(f"{where}: {path} is larger than {MAX_CHECKPOINT_BYTES >> 30} GiB")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
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

    for key in ("state_dict", "model", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{where}: {path} holds no state dict")
    if not all(isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in content.items()):
        raise DataError(f"{where}: {path} holds no state dict: not every entry is a tensor")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _mismatch(mine: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]]) -> str | None:
    if missing := sorted(mine.keys() - theirs.keys()):
        return f"{len(missing)} tensors are missing, {missing[0]} first"
    if extra := sorted(theirs.keys() - mine.keys()):
        return f"it has {len(extra)} tensors more, {extra[0]} first"
    for name, shape in mine.items():
        if theirs[name] != shape:
            return f"{name} has shape {list(theirs[name])}, this network's has {list(shape)}"
    return None


def make_teacher(
    teacher: Teacher,
    index: int,
    network: nn.Module,
    device: torch.device,
    cached: Path,
    train_it: Callable[[nn.Module], bool],
) -> ReadyTeacher:
    """Return the teacher, from its checkpoint, from the cache, or trained now and cached.

    `train_it` trains a network in place and returns whether it stayed finite.
    """
    where = f"teachers[{index}].checkpoint"
    if teacher.checkpoint is not None:
        load_checkpoint(network, teacher.checkpoint, where)
        return _ready(teacher, network, device, str(teacher.checkpoint))
    if _from_cache(network, cached):
        return _ready(teacher, network, device, "cache")
    network.to(device)
    if not train_it(network):
        raise RunFailed(
            f"teachers[{index}]: {teacher.network.use} diverged in training; "
            "lower full_data.recipe.learning_rate"
        )
    _save(network, cached)
    return _ready(teacher, network, device, "trained here")


def _from_cache(network: nn.Module, cached: Path) -> bool:
    """Read a cached teacher into `network`; a damaged file counts as none, and is replaced."""
    if not cached.is_file():
        return False
    try:
        load_checkpoint(network, cached, "cached teacher")
    except DataError:
        return False
    return True


def _ready(teacher: Teacher, network: nn.Module, device: torch.device, source: str) -> ReadyTeacher:
    network = freeze(network, device)
    return ReadyTeacher(
        use=teacher.network.use, network=network, source=source, digest=weights_digest(network)
    )


def _save(network: nn.Module, path: Path) -> None:
    from safetensors.torch import save

    state = {n: tensor.detach().cpu().contiguous().clone() for n, tensor in network.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            whole = Path(folder) / path.name
            whole.write_bytes(save(state))
            os.replace(whole, path)
    except OSError as error:
        raise RunFailed(f"{path}: the teacher cannot be kept: {one_line(error)}") from error
