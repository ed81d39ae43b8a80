"""The short names of networks against what the original codes make of them, stated again here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ddrank_networks.alexnet import AlexNet
from ddrank_networks.convnet import ConvNet
from ddrank_networks.lenet import LeNet
from ddrank_networks.mlp import MLP
from ddrank_networks.resnet import ResNet
from ddrank_networks.vgg import VGG

from ddrank_core.errors import PluginError
from ddrank_core.registry import default_registry
from ddrank_core.structure import Structurer

REGISTRY = default_registry()
SHORT = [entry.name for entry in REGISTRY.entries("architecture") if entry.spec.preset]


def chosen(value):
    return Structurer(REGISTRY, Path()).chosen("architecture", value).component


# name -> what `get_network` of VICO-UoE/DatasetCondensation (utils.py), of its followers
# GeorgeCazenavette/mtt-distillation and NUS-HPC-AI-Lab/DATM, or the function of that name in their
# networks.py builds.
DC_FAMILY = {
    "MLP": MLP(),
    "ConvNet": ConvNet(depth=3, width=128, norm="instance", pooling="avg", activation="relu"),
    "LeNet": LeNet(),
    "AlexNet": AlexNet(),
    "VGG11": VGG(depth=11, norm="instance"),
    "VGG11BN": VGG(depth=11, norm="batch"),
    "VGG13": VGG(depth=13, norm="instance"),
    "VGG16": VGG(depth=16, norm="instance"),
    "VGG19": VGG(depth=19, norm="instance"),
    "ResNet18": ResNet(depth=18, norm="instance"),
    "ResNet18BN": ResNet(depth=18, norm="batch"),
    "ResNet18_AP": ResNet(depth=18, norm="instance", downsampling="average"),
    "ResNet18BN_AP": ResNet(depth=18, norm="batch", downsampling="average"),
    "ResNet34": ResNet(depth=34, norm="instance"),
    "ResNet50": ResNet(depth=50, norm="instance"),
    "ResNet101": ResNet(depth=101, norm="instance"),
    "ResNet152": ResNet(depth=152, norm="instance"),
    "ResNet18ImageNet": ResNet(depth=18, norm="instance", stem="standard"),
    "ResNet6ImageNet": ResNet(depth=10, norm="instance", stem="standard"),
    **{f"ConvNetD{depth}": ConvNet(depth=depth) for depth in (1, 2, 3, 4, 5, 6, 7, 8)},
    **{f"ConvNetW{width}": ConvNet(width=width) for width in (32, 64, 128, 256, 512, 1024)},
    "ConvNetKIP": ConvNet(width=1024, norm="none"),
    "ConvNetAS": ConvNet(activation="sigmoid"),
    "ConvNetAR": ConvNet(activation="relu"),
    "ConvNetAL": ConvNet(activation="leakyrelu"),
    "ConvNetNN": ConvNet(norm="none"),
    "ConvNetBN": ConvNet(norm="batch"),
    "ConvNetLN": ConvNet(norm="layer"),
    "ConvNetIN": ConvNet(norm="instance"),
    "ConvNetGN": ConvNet(norm="group"),
    "ConvNetNP": ConvNet(pooling="none"),
    "ConvNetMP": ConvNet(pooling="max"),
    "ConvNetAP": ConvNet(pooling="avg"),
    "ConvNetD4BN": ConvNet(depth=4, norm="batch"),
    "MLP_Tiny": MLP(),
    "LeNet_Tiny": LeNet(stride=2),
    "AlexNet_Tiny": AlexNet(stride=2),
    "VGG11_Tiny": VGG(depth=11, norm="instance", pooling="subsample"),
    "ResNet18_Tiny": ResNet(depth=18, norm="instance", stem="strided"),
    "ResNet18BN_Tiny": ResNet(depth=18, norm="batch", stem="strided"),
}


def of_ddranking(name: str):
    """Read a name as ddranking's docs do: MODEL-DEPTH-NORM, with instance norm where none is named."""
    match = re.fullmatch(r"(ConvNet|VGG|ResNet)-(\d+)(?:-(BN|IN|LN|GN|NN))?", name)
    model, depth, tag = match.groups()
    norms = {"BN": "batch", "IN": "instance", "LN": "layer", "GN": "group", "NN": "none", None: "instance"}
    made = {"ConvNet": ConvNet, "VGG": VGG, "ResNet": ResNet}[model]
    return made(depth=int(depth), norm=norms[tag])


@pytest.mark.parametrize("name", DC_FAMILY)
def test_a_name_of_the_dc_family_means_what_its_code_builds(name):
    assert chosen(name) == DC_FAMILY[name]


@pytest.mark.parametrize("name", [name for name in SHORT if "-" in name])
def test_a_name_of_ddranking_means_its_model_depth_and_norm(name):
    assert chosen(name) == of_ddranking(name)


def test_every_short_name_is_of_one_of_the_two_families():
    assert set(SHORT) == set(DC_FAMILY) | {name for name in SHORT if "-" in name}
    assert len(SHORT) == len(set(SHORT))
    assert REGISTRY.problems == ()


@pytest.mark.parametrize(
    "name",
    [
        # What ddranking 0.2.0 publishes weights or reference accuracies of.
        *("ConvNet-3", "ConvNet-3-BN", "ConvNet-4", "ConvNet-4-BN", "ResNet-18-BN"),
        *(f"ConvNet-{depth}{tag}" for depth in range(1, 9) for tag in ("", "-IN", "-LN", "-GN", "-NN")),
        *(f"VGG-{depth}{tag}" for depth in (11, 13, 16, 19) for tag in ("", "-BN", "-IN")),
        *(f"ResNet-{depth}{tag}" for depth in (10, 18, 34, 50, 101, 152) for tag in ("", "-BN", "-IN")),
    ],
)
def test_a_name_of_ddranking_is_known(name):
    assert name in SHORT


def test_convnet_3_of_ddranking_has_320010_parameters():
    network = chosen("ConvNet-3").build(10, (3, 32, 32))
    assert sum(parameter.numel() for parameter in network.parameters()) == 320_010


def test_a_config_can_change_what_a_short_name_sets():
    assert chosen({"use": "ConvNet-3-BN", "width": 64}) == ConvNet(depth=3, width=64, norm="batch")
    assert chosen({"use": "ResNet-18", "stem": "strided"}) == ResNet(depth=18, stem="strided")


@pytest.mark.parametrize("name", ["LeNet-BN", "AlexNet-BN", "MLP-BN", "VGG-12", "ResNet-18-LN"])
def test_a_network_that_neither_family_has_is_not_known(name):
    with pytest.raises(PluginError, match=f"no architecture '{name}'"):
        chosen(name)


@pytest.mark.parametrize("name", SHORT)
def test_the_summary_of_a_short_name_says_what_it_sets(name):
    spec = REGISTRY.find("architecture", name).spec
    for parameter, value in spec.preset.items():
        assert f"{parameter}: {value}" in spec.summary
