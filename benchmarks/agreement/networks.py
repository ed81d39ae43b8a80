"""Put the same weights into ddranking 0.2.0's networks and ours, and compare their logits.

Run it with the peer's Python (`benchmarks/peer/setup.sh` makes it), with the root and the plugins of this
project on the path:

    PYTHONPATH=.:plugins PEER/bin/python benchmarks/agreement/networks.py

The peer's network is drawn first, its norms' scales, shifts and running statistics too; ours must then
load its state dict by name, with nothing missing and nothing left. Logits are compared in train and in
evaluation mode. Ends with exit code 1 if a pair that should agree differs by more than 1e-5, or if a
listed disagreement is none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from typing import Any

import attrs
import torch
from ddrank_networks import ddrank_architectures
from ddranking.utils import networks as theirs
from ddranking.utils.model import build_model
from torch import Tensor, nn

CLASSES, IMAGES, TOLERANCE = 10, 4, 1e-5
SPECS = {spec.name: spec for spec in ddrank_architectures()}


def ours(name: str, shape: tuple[int, int, int], **parameters: Any) -> nn.Module:
    """Return our network of a short name, for images of `shape`."""
    spec = SPECS[name]
    module, _, cls = spec.target.partition(":")
    architecture = getattr(import_module(module), cls)(**{**spec.preset, **parameters})
    network: nn.Module = architecture.build(CLASSES, shape)
    return network


def peers(name: str, side: int) -> nn.Module:
    """Return what the peer makes of a model name; it gives every network three channels."""
    network: nn.Module = build_model(name, CLASSES, (side, side), device="cpu")
    return network


@attrs.frozen
class Pair:
    """One of the peer's networks and ours."""

    label: str
    peer: Callable[[], nn.Module]
    own: Callable[[], nn.Module]
    shape: tuple[int, int, int]


def by_name(name: str, side: int, own: str | None = None, **parameters: Any) -> Pair:
    shape = (3, side, side)
    changed = "".join(f", {key}: {value}" for key, value in parameters.items())
    label = f"{name} at {side} px" + (f" = {own}" if own else "") + changed
    return Pair(label, lambda: peers(name, side), lambda: ours(own or name, shape, **parameters), shape)


def by_class(label: str, own: str, shape: tuple[int, int, int], peer: Callable[[], nn.Module]) -> Pair:
    return Pair(f"{label} = {own}, {' x '.join(map(str, shape))}", peer, lambda: ours(own, shape), shape)


def pairs() -> Iterator[Pair]:
    """Yield what should agree."""
    for depth in (1, 2, 3, 4, 5):
        yield by_name(f"ConvNet-{depth}", 32)
        yield by_name(f"ConvNet-{depth}-BN", 32)
    for name in ("ConvNet-3", "ConvNet-3-IN", "ConvNet-4", "ConvNet-4-BN", "MLP"):
        yield by_name(name, 64)
    for side in (128, 224):
        yield by_name("ConvNet-5", side)
    for name in ("MLP", "LeNet", "AlexNet"):
        yield by_name(name, 32)
    for depth in (11, 13, 16, 19):
        yield by_name(f"VGG-{depth}", 32)
        yield by_name(f"VGG-{depth}-BN", 32)
    for depth in (18, 34, 50):
        yield by_name(f"ResNet-{depth}", 32)
        yield by_name(f"ResNet-{depth}-BN", 32)
    yield by_name("LeNet", 64, "LeNet_Tiny")
    yield by_name("AlexNet", 64, "AlexNet_Tiny")
    yield by_name("VGG-11", 64, "VGG11_Tiny")
    yield by_name("VGG-16-BN", 64, pooling="subsample")
    yield by_name("ResNet-18", 64, "ResNet18_Tiny")
    yield by_name("ResNet-18-BN", 64, "ResNet18BN_Tiny")
    yield by_name("ResNet-50-BN", 64, stem="strided")
    yield from pairs_of_classes()


def pairs_of_classes() -> Iterator[Pair]:
    """Yield what no model name of the peer reaches, from the functions and classes of its networks.py."""
    colour, grey = (3, 32, 32), (1, 28, 28)
    for name in ("ResNet18", "ResNet18BN", "ResNet18_AP", "ResNet18BN_AP", "VGG11", "VGG11BN"):
        for shape in (colour, grey):
            yield by_class(name, name, shape, lambda n=name, s=shape: getattr(theirs, n)(s[0], CLASSES))
    for name in ("ResNet18_Tiny", "ResNet18BN_Tiny", "VGG11_Tiny"):
        yield by_class(name, name, (3, 64, 64), lambda n=name: getattr(theirs, n)(3, CLASSES))
    for name in ("ResNet18ImageNet", "ResNet6ImageNet"):
        for side in (64, 128):
            yield by_class(name, name, (3, side, side), lambda n=name: getattr(theirs, n)(3, CLASSES))
    for name in ("MLP", "LeNet", "AlexNet"):
        yield by_class(name, name, grey, lambda n=name: getattr(theirs, n)(1, CLASSES))
    for own, norm, pooling, activation in (
        ("ConvNetBN", "batchnorm", "avgpooling", "relu"),
        ("ConvNetLN", "layernorm", "avgpooling", "relu"),
        ("ConvNetGN", "groupnorm", "avgpooling", "relu"),
        ("ConvNetNN", "none", "avgpooling", "relu"),
        ("ConvNetMP", "instancenorm", "maxpooling", "relu"),
        ("ConvNetNP", "instancenorm", "none", "relu"),
        ("ConvNetAS", "instancenorm", "avgpooling", "sigmoid"),
        ("ConvNetAL", "instancenorm", "avgpooling", "leakyrelu"),
    ):
        for shape in (colour, grey):
            options = (shape[0], CLASSES, 128, 3, activation, norm, pooling, shape[1:])
            yield by_class(f"ConvNet({norm})", own, shape, lambda o=options: theirs.ConvNet(*o))


def grey_convnet(side: int) -> nn.Module:
    return theirs.ConvNet(1, CLASSES, 128, 3, "relu", "instancenorm", "avgpooling", (side, side))


def disagreements() -> Iterator[tuple[Pair, str]]:
    """Yield what does not agree, with who is right and why."""
    for tag, norm in (("GN", "group"), ("LN", "layer"), ("NN", "no")):
        yield (
            by_name(f"ConvNet-3-{tag}", 32),
            "ours: it reads BN only and trains instance norm for every other name; "
            f"{tag} is {norm} norm in the DC family (ConvNet{tag})",
        )
    yield (
        by_name("VGG-11", 64),
        "ours: its AvgPool2d(kernel_size=1, stride=2) keeps the top left of the four values that are left, "
        "of which ours is the mean; VGG11_Tiny is its network, for results that were had with it",
    )
    yield (
        by_name("ResNet-18-BN", 64),
        "both are in use: it takes stride 2 in the first convolution, as DATM's ResNet18BN_Tiny; ours takes "
        "stride 1, as the peer itself does with use_torchvision, and as SRe2L and its followers do. "
        "ResNet18BN_Tiny, or stem: strided, is its network. The state dicts fit each other: beware",
    )
    for name in ("AlexNet", "LeNet"):
        yield (
            by_name(name, 64),
            "both are possible: it takes stride 2 in the first convolution; ours keeps the stride 1 of 32 px "
            f"and has a larger linear layer; {name}_Tiny (DATM's name) is its network",
        )
    for name in ("ResNet-18-BN", "VGG-11-BN", "AlexNet", "LeNet"):
        yield by_name(name, 128), "ours: it fits images of 32 and 64 px only"
    for name in ("ResNet-10", "ResNet-101"):
        yield by_name(name, 32), "ours: it knows ResNets of 18, 34 and 50 layers only"
    yield (
        by_class("ConvNet-3", "ConvNet-3", (1, 28, 28), lambda: peers("ConvNet-3", 28)),
        "ours: build_model makes three channels whatever the data set, so that MNIST cannot be evaluated",
    )
    yield (
        by_class("ConvNet(1 channel)", "ConvNet", (1, 32, 32), lambda: grey_convnet(32)),
        "ours: it pads every grey image by 3, as the DC family's code does, which is there to make 32 px of "
        "28 and puts an empty frame around any other. The state dicts fit each other: beware",
    )
    yield (
        by_class("LeNet(28 px, 1 channel)", "LeNet", (1, 28, 28), lambda: theirs.LeNet(1, CLASSES, res=28)),
        "ours: it takes stride 2 for every size but 32 px, and its linear layer does not fit then",
    )
    yield (
        Pair(
            "ResNet_AP with Bottleneck_AP at 32 px",
            lambda: theirs.ResNet_AP(theirs.Bottleneck_AP, [3, 4, 6, 3], 3, CLASSES),
            lambda: ours("ResNet-50", (3, 32, 32), downsampling="average"),
            (3, 32, 32),
        ),
        "ours: its shortcut of layer 1 halves the image where the block does not, as in the DC family's code",
    )


def drawn(network: nn.Module) -> nn.Module:
    """Draw what is constant in a new network: scales, shifts and running statistics."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.dtype.is_floating_point and tensor.dim() == 1:
                spread = 0.2 * torch.rand(tensor.shape, generator=generator)
                tensor.copy_(spread if name.endswith(("bias", "running_mean")) else 0.9 + spread)
    return network


def difference(pair: Pair) -> tuple[float, float]:
    """Return the largest difference of a logit in train and evaluation mode, and the largest logit."""
    torch.manual_seed(0)
    peer = drawn(pair.peer())
    own = pair.own()
    own.load_state_dict(peer.state_dict(), strict=True)
    images = torch.randn(IMAGES, *pair.shape, generator=torch.Generator().manual_seed(2))
    largest, scale = 0.0, 0.0
    # Evaluation first: in train mode the running statistics change.
    for mode in (False, True):
        with torch.no_grad():
            expected: Tensor = peer.train(mode)(images)
            found: Tensor = own.train(mode)(images)
        largest = max(largest, (found - expected).abs().max().item())
        scale = max(scale, expected.abs().max().item())
    return largest, scale


def what_differs(pair: Pair) -> str | None:
    """Return in words how the two differ, or None if they do not."""
    images = torch.zeros(IMAGES, *pair.shape)
    pair.own()(images)
    try:
        pair.peer()(images)
    except Exception as error:  # whatever the peer's code stops with
        return f"the peer's stops with {type(error).__name__}: {str(error).splitlines()[0]}"
    try:
        found, _ = difference(pair)
    except RuntimeError:  # of load_state_dict
        return "the state dicts do not fit each other"
    return f"logits differ by up to {found:.2g}" if found > TOLERANCE else None


def main() -> int:
    torch.set_num_threads(1)
    print(f"ddranking {version('ddranking')}, torch {torch.__version__}; largest |difference| of a logit")
    worst, count, failed = 0.0, 0, 0
    for pair in pairs():
        found, scale = difference(pair)
        worst, count = max(worst, found), count + 1
        failed += not found <= TOLERANCE
        print(f"{found:8.1e}  of {scale:5.2f}  {pair.label}{'' if found <= TOLERANCE else '  DISAGREES'}")
    print(f"{count} networks, largest difference {worst:.1e} (at most {TOLERANCE:g} wanted)\n\nDisagreements")
    for pair, verdict in disagreements():
        what = what_differs(pair)
        failed += what is None
        print(f"- {pair.label}: {what or 'NONE FOUND'}. Right: {verdict}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
