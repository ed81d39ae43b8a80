"""Every component that a config can name: what the project promises, and what the contract is checked on.

Names come from the registry. Of a family with many members a fixed sample is taken; parameters that have no
default, and those that make a component small, are given here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import nn

from ddrank_core import Randomness
from ddrank_core.registry import ALL_KINDS, Entry, default_registry
from ddrank_core.structure import Chosen, Structurer

REGISTRY = default_registry()

_FILES = tempfile.TemporaryDirectory()
"""Removed when the process ends."""


def _pictures(folder: Path) -> Path:
    """Write a picture of 16 x 16 pixels of each of two classes, to train and to test with."""
    for part, name in ((part, name) for part in ("train", "test") for name in ("cat", "dog")):
        path = folder / part / name / "one.png"
        path.parent.mkdir(parents=True)
        pixels = np.random.default_rng(len(name + part)).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def _arrays(path: Path) -> Path:
    """Write two grey images of each of two classes, to train and to test with."""
    draws = np.random.default_rng(0)
    images = {f"x_{part}": draws.integers(0, 256, (4, 8, 8), dtype=np.uint8) for part in ("train", "test")}
    np.savez(path, **images, y_train=[0, 1, 0, 1], y_test=[0, 1, 0, 1])
    return path


PROMISED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "architecture": {
        "ConvNet-D with every norm": (
            {"use": "convnet", "depth": 4, "norm": "instance"},
            *({"use": "convnet", "norm": norm} for norm in ("batch", "layer", "group", "none")),
        ),
        "ConvNet-D with average or max pooling, and its width": (
            {"use": "convnet", "pooling": "avg"},
            {"use": "convnet", "pooling": "max", "width": 256},
        ),
        "MLP, LeNet, AlexNet": ("mlp", "lenet", "alexnet"),
        "VGG-11/13/16/19": tuple({"use": "vgg", "depth": depth} for depth in (11, 13, 16, 19)),
        "ResNet-18/34/50 with batch or instance norm": tuple(
            {"use": "resnet", "depth": depth, "norm": norm}
            for depth in (18, 34, 50)
            for norm in ("batch", "instance")
        ),
        "torchvision/<any classifier>, with the small stem": (
            {"use": "torchvision/resnet18", "stem": "small"},
            "torchvision/vit_b_32",
        ),
        "timm/<any>, with the small stem": (
            {"use": "timm/resnet18", "stem": "small"},
            "timm/resnet18.a1_in1k",
            "timm/vit_tiny_patch16_224",
        ),
        "the old short names": ("ConvNet-3", "ConvNet-3-BN", "ResNet-18-BN", "ConvNetD3", "VGG-11"),
    },
    "augmentation": {
        "none": ("none",),
        "DSA with every strategy, siamese, single or multiple": (
            *({"use": "dsa", "strategies": [s]} for s in ("color", "crop", "cutout")),
            *({"use": "dsa", "strategies": [s]} for s in ("flip", "scale", "rotate")),
            {"use": "dsa", "siamese": True, "mode": "single"},
            {"use": "dsa", "mode": "multiple"},
        ),
        "the DC family's own for MNIST": ("dc",),
        "MixUp, CutMix": ("mixup", "cutmix"),
        "crops and flips": ("random-resized-crop", "random-crop", "horizontal-flip", "vertical-flip"),
        "AutoAugment, RandAugment": ("autoaugment", "randaugment"),
        "patch shuffling": ("patch-shuffle",),
        "kornia/<name>": ({"use": "kornia/RandomAffine", "degrees": 15}, "kornia/RandomErasing"),
        "torchvision/<name>": ("torchvision/TrivialAugmentWide", {"use": "torchvision/JPEG", "quality": 50}),
    },
    "label-mapping": {
        "hard": ("hard",),
        "one stored soft label per image": ("soft",),
        "teacher on every view": ("teacher",),
        "mean of an ensemble's logits or probabilities": (
            {"use": "teacher", "combine": "logits"},
            {"use": "teacher", "combine": "probabilities"},
        ),
        "stored labels with their views": ("stored-views",),
        "label smoothing": ({"use": "smooth", "smoothing": 0.1},),
    },
    "loss": {
        "ce, sce, mse_gt, mse": ("ce", "sce", "mse_gt", "mse"),
        "kl with or without the square of its temperature": (
            {"use": "kl", "temperature": 20, "scale_loss": True},
            {"use": "kl", "temperature": 20, "scale_loss": False},
        ),
    },
    "optimizer": {"SGD, Adam, AdamW": ("sgd", "adam", "adamw")},
    "schedule": {
        "constant, cosine to zero, half-cosine": ("constant", "cosine", "half-cosine"),
        "step, multi-step": ({"use": "step", "step_size": 5}, {"use": "multi-step", "milestones": [5]}),
        "warm-up in front of any": tuple(
            {"use": "warmup", "epochs": 5, "then": then}
            for then in ("constant", "cosine", "half-cosine", {"use": "step", "step_size": 5})
        ),
    },
    "dataset": {
        "embedded": ("digits",),
        "28 and 32 pixels": ("mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"),
        "TinyImageNet, ImageNet-1K": ("tiny-imagenet", "imagenet"),
        "ImageNet's parts": tuple(
            f"image{part}" for part in ("nette", "woof", "fruit", "yellow", "meow", "squawk")
        ),
        "any image folder": ({"use": "image-folder", "root": "pictures", "size": 32},),
        "any .npz or .pt": ({"use": "arrays", "path": "a.npz"}, {"use": "arrays", "path": "a.pt"}),
    },
    "protocol": {"ours and the peer's": ("strict", "ddranking-0.2")},
    "method": {
        "distribution matching": ("distribution-matching",),
        "the controls": (
            "noise",
            "random",
            {"use": "herding", "space": "pixels"},
            {"use": "k-means", "take": "centre"},
        ),
    },
    "sink": {
        "CSV, JSON lines, TensorBoard": ("csv", "jsonl", "tensorboard"),
        "Weights & Biases and MLflow": ("wandb", "mlflow"),
    },
}
"""Kind -> what must be there, in the issue's words -> how a config asks for it."""

NEEDED: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("schedule", "step"): {"step_size": 3},
    ("schedule", "multi-step"): {"milestones": [3, 7]},
    ("schedule", "warmup"): {"epochs": 4, "then": {"use": "cosine"}},
    ("dataset", "image-folder"): {"root": str(_pictures(Path(_FILES.name) / "pictures")), "size": 16},
    ("dataset", "arrays"): {"path": str(_arrays(Path(_FILES.name) / "arrays.npz"))},
    ("augmentation", "kornia/CenterCrop"): {"size": [32, 32]},
    ("augmentation", "kornia/Denormalize"): {"mean": [0.5], "std": [0.2]},
    ("augmentation", "kornia/LongestMaxSize"): {"max_size": 32},
    ("augmentation", "kornia/Normalize"): {"mean": [0.5], "std": [0.2]},
    ("augmentation", "kornia/PadTo"): {"size": [32, 32]},
    ("augmentation", "kornia/RandomAffine"): {"degrees": 15},
    ("augmentation", "kornia/RandomCrop"): {"size": [32, 32]},
    ("augmentation", "kornia/RandomFisheye"): {
        "center_x": [-0.3, 0.3],
        "center_y": [-0.3, 0.3],
        "gamma": [0.9, 1.0],
    },
    ("augmentation", "kornia/RandomGaussianBlur"): {"kernel_size": 3, "sigma": [0.1, 2.0]},
    ("augmentation", "kornia/RandomMotionBlur"): {"kernel_size": 3, "angle": 35, "direction": 0.5},
    ("augmentation", "kornia/RandomResizedCrop"): {"size": [32, 32]},
    ("augmentation", "kornia/RandomRotation"): {"degrees": 15},
    ("augmentation", "kornia/RandomRotation90"): {"times": [0, 3]},
    ("augmentation", "kornia/RandomShear"): {"shear": 10},
    ("augmentation", "kornia/Resize"): {"size": [32, 32]},
    ("augmentation", "kornia/SmallestMaxSize"): {"max_size": 32},
    ("augmentation", "torchvision/CenterCrop"): {"size": 32},
    ("augmentation", "torchvision/GaussianBlur"): {"kernel_size": 3},
    ("augmentation", "torchvision/JPEG"): {"quality": [20, 80]},
    ("augmentation", "torchvision/Pad"): {"padding": 0},
    ("augmentation", "torchvision/RandomAdjustSharpness"): {"sharpness_factor": 2},
    ("augmentation", "torchvision/RandomAffine"): {"degrees": 15},
    ("augmentation", "torchvision/RandomCrop"): {"size": 32},
    ("augmentation", "torchvision/RandomPosterize"): {"bits": 3},
    ("augmentation", "torchvision/RandomResizedCrop"): {"size": 32},
    ("augmentation", "torchvision/RandomRotation"): {"degrees": 15},
    ("augmentation", "torchvision/RandomSolarize"): {"threshold": 0.5},
    ("augmentation", "torchvision/Resize"): {"size": 32},
}
"""(kind, name) -> a value for each parameter that has no default, and for no other."""

SAMPLED: Mapping[str, tuple[str, ...]] = {
    # One of each of torchvision's modules, but of those that are slow at any size: AlexNet, Inception 3,
    # MaxViT, VGG and ViT.
    "torchvision/*": (
        *("convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2"),
        *("mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"),
        "swin_t",
    ),
    "timm/*": (
        *("resnet18.a1_in1k", "test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_nfnet"),
        *("ghostnet_050", "mobilenetv3_small_050", "regnetx_002", "resnet10t", "vit_tiny_patch16_224"),
    ),
}
"""A family of networks -> the members that the contract is checked on; of other families it is all."""

SHAPES = ((3, 32, 32), (1, 32, 32), (1, 16, 32), (3, 24, 32))
"""What each of our own augmentations takes, (C, H, W)."""

SMALL: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("method", "distribution-matching"): {"iterations": 3, "batch_real": 4},
    # torchvision's default is 1, which changes the size of images of 3.
    ("augmentation", "torchvision/Grayscale"): {"num_output_channels": 3},
}
"""(kind, name) -> what makes a component small, or its default fit, where its work is checked."""


def _names(kind: str) -> Iterator[str]:
    for entry in REGISTRY.entries(kind):
        if not entry.spec.is_family:
            yield entry.name
        elif entry.name in SAMPLED and kind == "architecture":
            yield from (f"{entry.name.removesuffix('*')}{member}" for member in SAMPLED[entry.name])
        else:
            yield from REGISTRY.members(entry)


NAMES: Mapping[str, tuple[str, ...]] = {kind: tuple(_names(kind)) for kind in ALL_KINDS}
"""Kind -> the names that the contract is checked on: bare and short ones, and members of families."""

EVERY = [(kind, name) for kind, names in NAMES.items() for name in names]


def entry_of(kind: str, name: str) -> Entry:
    return REGISTRY.find(kind, name)


def asked(kind: str, name: str, **more: Any) -> dict[str, Any]:
    """Return how a config asks for a component: by its name, and what it cannot do without."""
    return {"use": name, **NEEDED.get((kind, name), {}), **more}


def chosen(kind: str, name: str, **more: Any) -> Chosen[Any]:
    # Relative paths start at the working directory, so that writing and reading a config keeps them.
    return Structurer(REGISTRY, Path()).chosen(kind, asked(kind, name, **more))


def made(kind: str, name: str, **more: Any) -> Any:
    """Return a component as a config makes it, small where that is needed."""
    return chosen(kind, name, **{**SMALL.get((kind, name), {}), **more}).component


def required(kind: str, name: str) -> set[str]:
    """Return the parameters that a config must give."""
    fields = attrs.fields(REGISTRY.load(kind, name))
    preset = entry_of(kind, name).spec.preset
    return {field.name for field in fields if field.default is attrs.NOTHING and field.name not in preset}


def distinct_architectures() -> dict[Any, list[str]]:
    """Return each network component and all the names that stand for it."""
    found: dict[Any, list[str]] = {}
    for name in NAMES["architecture"]:
        found.setdefault(made("architecture", name), []).append(name)
    return found


SIDES = (8, 16, 32, 64, 128, 256)
CLASSES = 5


def built(architecture: Any, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return a network as the engine builds it, and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = architecture.build(CLASSES, shape)
    return network


def attempt(action: Callable[[], Any]) -> tuple[Any, ValueError | None]:
    """Return what an action returns, or the ValueError that it raises, which must be of one line."""
    try:
        return action(), None
    except ValueError as error:
        refused = error
    assert str(refused).strip()
    assert "\n" not in str(refused)
    return None, refused


def smallest_network(architecture: Any, channels: int = 3) -> tuple[nn.Module, tuple[int, int, int]]:
    """Return a network for the smallest of some images that it takes."""
    for side in SIDES:
        network, _ = attempt(partial(built, architecture, (channels, side, side)))
        if network is not None:
            return network, (channels, side, side)
    raise AssertionError(f"{architecture} takes no images of up to {SIDES[-1]} pixels")


def randomness(seed: int) -> Randomness:
    return Randomness(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed))
