"""Lists of torchvision transforms, from an old config or as objects, in the words of ours."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import attrs

from ddrank_core.errors import ConfigError

_ORDER = {
    "Resize": ("size",),
    "CenterCrop": ("size",),
    "RandomCrop": ("size", "padding"),
    "RandomResizedCrop": ("size", "scale", "ratio"),
    "RandomHorizontalFlip": ("p",),
    "RandomVerticalFlip": ("p",),
    "Normalize": ("mean", "std"),
}
"""The names of the arguments that old configs give in a list."""

_TO_TENSOR = {"ToTensor", "PILToTensor", "ToImage", "ToImageTensor", "ToDtype", "ConvertImageDtype"}
_PADDING_MODES = {"constant": "zero", "reflect": "reflect"}


@attrs.frozen
class Step:
    """One transform: torchvision's name of it, and its arguments."""

    name: str
    arguments: Mapping[str, Any]


@attrs.frozen
class Pipeline:
    """What a list of transforms comes to here."""

    augmentation: tuple[Any, ...] = ()
    """As a config writes them, in order."""
    normalised_with: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation of its Normalize."""
    test_resize: int | None = None
    """What a picture's shorter side is resized to before its centre is cut out."""


def steps_of(transforms: Any, where: str) -> tuple[Step, ...]:
    """Return the transforms of a Compose, of a list of transforms, or of an old config's list of names.

    Raises:
        ConfigError: for what is neither a name with arguments nor one of torchvision's own transforms.
    """
    if transforms is None:
        return ()
    inner = getattr(transforms, "transforms", transforms)
    listed = inner if isinstance(inner, Sequence) and not isinstance(inner, str) else [inner]
    return tuple(step for item in listed for step in _steps(item, where))


def _steps(item: Any, where: str) -> tuple[Step, ...]:
    if isinstance(item, Mapping):
        return (_named(item, where),)
    if type(item).__name__ == "Compose":
        return steps_of(item, where)
    return (_made(item, where),)


def _named(item: Mapping[str, Any], where: str) -> Step:
    name, arguments = item.get("name"), item.get("args") or {}
    if not isinstance(name, str):
        raise ConfigError(f"{where}: a transform needs a name and perhaps args, got {dict(item)!r}")
    if isinstance(arguments, Mapping):
        return Step(name, dict(arguments))
    order = _ORDER.get(name, ())
    if not isinstance(arguments, Sequence) or len(arguments) > len(order):
        raise ConfigError(f"{where}: {name}: give its args by name")
    return Step(name, dict(zip(order, arguments, strict=False)))


def _made(item: Any, where: str) -> Step:
    """Read a transform object back into its name and the arguments it was made with."""
    cls = type(item)
    if not cls.__module__.startswith("torchvision.transforms") or cls.__name__ == "Lambda":
        raise ConfigError(
            f"{where}: {cls.__module__}.{cls.__name__} is not one of torchvision's transforms; a result has "
            "to say what it was trained with, so write it as a plugin's augmentation"
        )
    arguments = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        default = None if parameter.default is parameter.empty else parameter.default
        value = _plain(getattr(item, name, default), where, cls.__name__)
        if value is not None and value != _plain(default, where, cls.__name__):
            arguments[name] = value
    return Step(cls.__name__, arguments)


def _plain(value: Any, where: str, name: str) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, where, name) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, where, name) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if name in _TO_TENSOR:
        return None
    raise ConfigError(f"{where}: {name}: an argument of type {type(value).__name__} cannot be written down")


def training_pipeline(steps: Sequence[Step], side: int, where: str) -> Pipeline:
    """Return what training transforms come to, for images of `side` pixels.

    Raises:
        ConfigError: for a transform that changes the images' size, or would mean something else here.
    """
    augmentation, normalised = [], None
    for step in steps:
        if step.name in _TO_TENSOR:
            continue
        if step.name == "Normalize":
            normalised = _statistics(step, where)
        elif step.name in ("Resize", "CenterCrop"):
            _check_side(step, side, where)
        else:
            augmentation.append(_augmentation(step, side, where))
    return Pipeline(tuple(item for item in augmentation if item), normalised)


def validation_pipeline(steps: Sequence[Step], side: int, where: str) -> Pipeline:
    """Return what validation transforms come to: Resize and CenterCrop to `side`, and Normalize.

    Raises:
        ConfigError: for anything else.
    """
    resize, crop, normalised = None, None, None
    for step in steps:
        if step.name == "Normalize":
            normalised = _statistics(step, where)
        elif step.name == "Resize" and crop is None:
            resize = _side(step, where)
        elif step.name == "CenterCrop":
            crop = _side(step, where)
        elif step.name not in _TO_TENSOR:
            raise ConfigError(
                f"{where}: {step.name}: test images can be resized and cut, and nothing else; use validation."
                "augmentation of a config"
            )
    last = crop or resize
    if last not in (None, side):
        raise ConfigError(f"{where}: gives images of {last} pixels, but im_size is {side}")
    return Pipeline((), normalised, resize if resize != side else None)


def _augmentation(step: Step, side: int, where: str) -> Any:
    arguments = dict(step.arguments)
    match step.name:
        case "RandomHorizontalFlip" | "RandomVerticalFlip":
            name = step.name.removeprefix("Random").removesuffix("Flip").lower()
            return {"use": f"{name}-flip", "p": float(arguments.get("p", 0.5))}
        case "RandomCrop":
            return _random_crop(step, side, where)
        case "RandomResizedCrop":
            _check_side(step, side, where)
            kept = {key: _floats(arguments[key]) for key in ("scale", "ratio") if key in arguments}
            return {"use": "random-resized-crop", **kept}
        case "Identity":
            return None
        case _:
            return {"use": f"torchvision/{step.name}", **arguments}


def _random_crop(step: Step, side: int, where: str) -> Any:
    _check_side(step, side, where)
    padding = step.arguments.get("padding") or 0
    if isinstance(padding, Sequence) and len(set(padding)) == 1:
        padding = padding[0]
    mode = step.arguments.get("padding_mode", "constant")
    if not isinstance(padding, int) or mode not in _PADDING_MODES or step.arguments.get("fill"):
        raise ConfigError(
            f"{where}: RandomCrop: random-crop pads every side alike, with black or with the mirror image"
        )
    return {"use": "random-crop", "padding": padding, "mode": _PADDING_MODES[mode]} if padding else None


def _check_side(step: Step, side: int, where: str) -> None:
    given = _side(step, where)
    if given != side:
        raise ConfigError(f"{where}: {step.name}: gives images of {given} pixels, but im_size is {side}")


def _side(step: Step, where: str) -> int:
    size = step.arguments.get("size")
    if isinstance(size, Sequence) and not isinstance(size, str) and len(set(size)) == 1:
        size = size[0]
    if not isinstance(size, int):
        raise ConfigError(f"{where}: {step.name}: size must be one number of pixels, got {size!r}")
    return size


def _statistics(step: Step, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        return tuple(_floats(step.arguments["mean"])), tuple(_floats(step.arguments["std"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: Normalize: needs mean and std, one number per channel") from error


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values]
