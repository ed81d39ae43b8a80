"""What is observed of a component's work: devices, global random state, tensors in words."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
import torch

from ddrank_core.testing.case import ContractBroken, hold

CPU = torch.device("cpu")

_READ: dict[str, Callable[[], bytes]] = {
    "torch": lambda: torch.get_rng_state().numpy().tobytes(),
    "random": lambda: repr(random.getstate()).encode(),
    "numpy": lambda: pickle.dumps(np.random.get_state()),
}
GENERATORS = tuple(_READ)
"""The global generators that everybody shares."""

_GLOBAL_SEED = 20240917
"""One that nobody seeds with, so that a component which seeds a global generator changes it."""


def devices() -> list[torch.device]:
    """Return the devices that components are checked on: the CPU, and a GPU where there is one."""
    return [CPU, torch.device("cuda")] if torch.cuda.is_available() else [CPU]


@contextmanager
def known_generators() -> Iterator[None]:
    """Give the global generators a state that is always the same, and put theirs back afterwards."""
    python, state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(_GLOBAL_SEED)
        random.seed(_GLOBAL_SEED)
        np.random.seed(_GLOBAL_SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(state)


def touched(action: Callable[[], Any], generators: Sequence[str] = GENERATORS) -> list[str]:
    """Return which global generators an action draws from, or seeds."""
    with known_generators():
        before = {name: _READ[name]() for name in generators}
        gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        action()
        found = [name for name in generators if _READ[name]() != before[name]]
        if "torch" in generators and gpu:
            after = torch.cuda.get_rng_state_all()
            same = all(torch.equal(*pair) for pair in zip(gpu, after, strict=True))
            found += [] if same else ["torch.cuda"]
    return found


def hold_untouched(action: Callable[[], Any], contract: str, generators: Sequence[str] = GENERATORS) -> None:
    """Fail if an action draws from a global generator."""
    found = touched(action, generators)
    hold(not found, f"changed the global random state of {' and '.join(found)}; {contract}")


def shown(value: Any) -> str:
    """Return a tensor in words: dtype, shape and device; anything else by its type."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device.type}"
    return "None" if value is None else f"an object of {type(value).__name__}"


def is_like(
    value: Any, dtype: torch.dtype, shape: Sequence[int] | torch.Size, device: torch.device = CPU
) -> bool:
    """Return whether a value is a tensor of that dtype, shape and kind of device."""
    return (
        isinstance(value, torch.Tensor)
        and value.dtype == dtype
        and tuple(value.shape) == tuple(shape)
        and value.device.type == device.type
    )


def tensors(value: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of an attrs object or a module, and of the attrs objects in it, by name."""
    if isinstance(value, torch.Tensor):
        return {"": value}
    if isinstance(value, torch.nn.Module):
        return dict(value.state_dict())
    if not attrs.has(type(value)):
        return {}
    found = {}
    for field in attrs.fields(type(value)):
        inner = tensors(getattr(value, field.name))
        found.update({f"{field.name}.{key}".rstrip("."): tensor for key, tensor in inner.items()})
    return found


def cloned(value: Any) -> Any:
    """Return a copy of an attrs object of tensors, so that nothing can be done to the original."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if not attrs.has(type(value)):
        return value
    return attrs.evolve(value, **{f.name: cloned(getattr(value, f.name)) for f in attrs.fields(type(value))})


def copies(value: Any) -> dict[str, torch.Tensor]:
    """Return copies of the tensors of an object, to compare it with later."""
    return {name: tensor.detach().clone() for name, tensor in tensors(value).items()}


def differences(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors that are not the same, bit for bit, NaN being NaN."""
    return [
        name
        for name in {**one, **other}
        if name not in one or name not in other or not _same(one[name], other[name])
    ]


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors are of one shape, and equal but for the rounding of float32."""
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-6)


def hold_unchanged(before: dict[str, torch.Tensor], value: Any, what: str) -> None:
    """Fail if a component has edited what it was handed."""
    changed = " and ".join(name or what for name in differences(before, copies(value)))
    hold(not changed, f"edited its input ({changed}); work on a copy, the engine uses {what} again")


def hold_same(first: Any, again: Any, what: str, contract: str) -> None:
    """Fail unless two outputs are the same, bit for bit."""
    changed = [name or what for name in differences(copies(first), copies(again))]
    hold(not changed, f"gave another output the second time ({', '.join(changed[:3])}); {contract}")


def hold_close(expected: Any, found: Any, where: str) -> None:
    """Fail unless an output agrees with the reference's, to float32's rounding."""
    mine, theirs = copies(found), copies(expected)
    hold(
        mine.keys() == theirs.keys(),
        f"gives {', '.join(mine) or 'no tensor'} {where}, the reference {', '.join(theirs) or 'no tensor'}",
    )
    for name, one in theirs.items():
        try:
            torch.testing.assert_close(mine[name].double(), one.double(), rtol=1e-4, atol=1e-5)
        except AssertionError as error:
            text = " ".join(str(error).split())
            raise ContractBroken(f"disagrees with its reference {where}: {name} {text}"[:400]) from None
