"""The networks against their published definitions, written out in functional torch, and torchvision's."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
import torchvision
from ddrank_networks.alexnet import AlexNet
from ddrank_networks.convnet import ConvNet
from ddrank_networks.lenet import LeNet
from ddrank_networks.mlp import MLP
from ddrank_networks.resnet import ResNet
from ddrank_networks.vgg import VGG
from torch import nn
from torch.nn import functional as F

NORMS = ["instance", "batch", "layer", "group", "none"]


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def naive_norm(x, norm, scale, shift, eps=1e-5):
    """(x - mean) / sqrt(variance + eps), over the axes that name the norm, then scale and shift."""
    batch, channels, height, width = x.shape
    if norm == "layer":
        grouped, axes = x, (1, 2, 3)
    elif norm == "batch":
        grouped, axes = x, (0, 2, 3)
    else:
        groups = channels if norm == "instance" else 4
        grouped, axes = x.reshape(batch, groups, channels // groups, height, width), (2, 3, 4)
    mean = grouped.mean(dim=axes, keepdim=True)
    variance = ((grouped - mean) ** 2).mean(dim=axes, keepdim=True)
    normed = ((grouped - mean) / (variance + eps).sqrt()).reshape(x.shape)
    if norm == "layer":
        return normed * scale + shift
    return normed * scale[None, :, None, None] + shift[None, :, None, None]


def naive_pool(x, pooling):
    """The mean, or the largest, of each 2 x 2 block; an odd last row or column is left out."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x = x[:, :, :height, :width]
    corners = torch.stack([x[:, :, i::2, j::2] for i, j in itertools.product((0, 1), repeat=2)])
    return corners.mean(dim=0) if pooling == "avg" else corners.amax(dim=0)


ACTIVATIONS = {
    "relu": lambda x: x * (x > 0),
    "leakyrelu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
}


def naive_forward(convnet: ConvNet, state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Apply the published network to the weights of a state dict, by the key names of its family."""
    index, x = 0, images
    for block in range(convnet.depth):
        padding = 3 if block == 0 and images.shape[1:] == (1, 28, 28) else 1
        x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=padding)
        index += 1
        if convnet.norm != "none":
            scale, shift = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
            x = naive_norm(x, convnet.norm, scale, shift)
            index += 1
        x = ACTIVATIONS[convnet.activation](x)
        index += 1
        if convnet.pooling != "none":
            x = naive_pool(x, convnet.pooling)
            index += 1
    return x.reshape(len(x), -1) @ state["classifier.weight"].T + state["classifier.bias"]


def randomised(network: nn.Module) -> nn.Module:
    """Draw all weights, so that a norm's scale and shift differ from 1 and 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


VARIANTS = [
    *(ConvNet(depth=2, width=8, norm=norm) for norm in NORMS),
    *(ConvNet(depth=2, width=8, pooling=pooling) for pooling in ("max", "none")),
    *(ConvNet(depth=2, width=8, activation=activation) for activation in ("leakyrelu", "sigmoid")),
    ConvNet(depth=1, width=4),
    ConvNet(depth=4, width=4, norm="layer", pooling="max"),
]
SHAPES = [(3, 32, 32), (1, 28, 28), (1, 16, 16), (3, 28, 28), (3, 18, 21)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("convnet", VARIANTS, ids=str)
def test_convnet_computes_the_published_network(convnet, shape):
    network = randomised(convnet.build(7, shape)).double()
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = naive_forward(convnet, network.state_dict(), images)
    torch.testing.assert_close(network(images), expected)


def test_convnet3_of_the_literature_has_320010_parameters():
    assert parameter_count(ConvNet().build(10, (3, 32, 32))) == 320_010


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("depth", "width", "classes", "shape"),
    [(3, 128, 10, (3, 32, 32)), (3, 128, 10, (1, 28, 28)), (4, 64, 200, (3, 64, 64)), (2, 32, 10, (1, 8, 8))],
)
def test_parameter_count_is_the_closed_form(norm, depth, width, classes, shape):
    channels, side = shape[0], 32 if shape == (1, 28, 28) else shape[1]
    convolutions = 9 * channels * width + 9 * (depth - 1) * width**2 + depth * width
    per_norm = [
        2 * width * (side // 2**block) ** 2 if norm == "layer" else 2 * width for block in range(depth)
    ]
    classifier = (width * (side // 2**depth) ** 2 + 1) * classes
    expected = convolutions + (0 if norm == "none" else sum(per_norm)) + classifier
    network = ConvNet(depth=depth, width=width, norm=norm).build(classes, shape)
    assert parameter_count(network) == expected


def test_state_dict_has_the_keys_of_the_published_checkpoints():
    keys = list(ConvNet().build(10, (3, 32, 32)).state_dict())
    assert keys == [
        *(f"features.{index}.{part}" for index in (0, 1, 4, 5, 8, 9) for part in ("weight", "bias")),
        "classifier.weight",
        "classifier.bias",
    ]


def test_state_dict_of_a_convnet_without_norm_and_pooling_counts_only_what_is_there():
    network = ConvNet(norm="none", pooling="none", width=4).build(10, (3, 8, 8))
    features = [key for key in network.state_dict() if key.startswith("features")]
    assert features == [f"features.{index}.{part}" for index in (0, 2, 4) for part in ("weight", "bias")]


def test_features_of_mnist_images_are_those_of_32_pixels():
    network = ConvNet(width=8).build(10, (1, 28, 28))
    assert network.features(torch.zeros(2, 1, 28, 28)).shape == (2, 8, 4, 4)


def test_initial_weights_come_from_the_global_generator():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(ConvNet(width=4).build(10, (3, 16, 16)).parameters())

    assert torch.equal(weights(5), weights(5))
    assert not torch.equal(weights(5), weights(6))


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        (ConvNet(depth=2, width=4), (1, 8, 8)),
        (MLP(width=4), (1, 8, 8)),
        (LeNet(), (1, 16, 16)),
        (VGG(width=2), (1, 32, 32)),
        (ResNet(depth=10, width=2), (1, 16, 16)),
        (ResNet(depth=50, width=2, downsampling="average"), (1, 16, 16)),
    ],
    ids=str,
)
def test_many_networks_are_computed_as_one(architecture, shape):
    networks = [architecture.build(3, shape).double() for _ in range(3)]
    images = torch.randn(3, 5, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters, buffers = torch.func.stack_module_state(networks)

    def forward(own_parameters, own_buffers, own_images):
        return torch.func.functional_call(networks[0], (own_parameters, own_buffers), (own_images,))

    together = torch.func.vmap(forward)(parameters, buffers, images)
    one_by_one = torch.stack([network(batch) for network, batch in zip(networks, images, strict=True)])
    torch.testing.assert_close(together, one_by_one)


@pytest.mark.parametrize(
    ("depth", "shape"), [(3, (1, 7, 7)), (4, (3, 32, 8)), (6, (1, 28, 28)), (5, (3, 28, 28))]
)
def test_images_too_small_for_the_depth_are_refused_in_one_line(depth, shape):
    with pytest.raises(ValueError, match=f"at least {2**depth} x {2**depth} pixels") as caught:
        ConvNet(depth=depth).build(10, shape)
    assert "\n" not in str(caught.value)


def test_the_smallest_images_of_a_depth_are_taken():
    assert ConvNet(depth=3, width=4).build(10, (3, 8, 8))(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    assert ConvNet(depth=5, width=4).build(10, (1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_group_norm_needs_a_width_of_whole_groups():
    with pytest.raises(ValueError, match="multiple of 4"):
        ConvNet(norm="group", width=6)


SMALL_AND_LARGE = [(1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32), (3, 64, 64), (1, 224, 224)]


def images_of(shape: tuple[int, int, int], count: int = 2, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def conv(state, name, x, **options):
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)


def linear(state, name, x):
    return x.flatten(1) @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def relu(x):
    return x * (x > 0)


def to_32_pixels(images: torch.Tensor) -> torch.Tensor:
    """Put the zeros around a grey 28 x 28 image that the first convolution's larger padding stands for."""
    return F.pad(images, (2, 2, 2, 2)) if images.shape[1:] == (1, 28, 28) else images


@pytest.mark.parametrize("shape", SMALL_AND_LARGE)
def test_mlp_computes_three_linear_layers(shape):
    network = randomised(MLP(width=16).build(7, shape)).double()
    state, images = network.state_dict(), images_of(shape)
    hidden = relu(linear(state, "fc_2", relu(linear(state, "fc_1", images))))
    torch.testing.assert_close(network(images), linear(state, "fc_3", hidden))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SMALL_AND_LARGE)
def test_lenet_computes_the_published_network(shape, stride):
    network = LeNet(stride=stride).build(7, shape).double()
    state, images = network.state_dict(), images_of(shape)
    x = naive_pool(relu(conv(state, "features.0", to_32_pixels(images), stride=stride)), "max")
    x = naive_pool(relu(conv(state, "features.3", x)), "max")
    expected = linear(state, "fc_3", relu(linear(state, "fc_2", relu(linear(state, "fc_1", x)))))
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_alexnet_computes_the_published_network(shape, stride):
    network = AlexNet(stride=stride).build(7, shape).eval()
    state, images = network.state_dict(), images_of(shape, dtype=torch.float32)
    x = relu(conv(state, "features.0", to_32_pixels(images), stride=stride, padding=2))
    x = relu(conv(state, "features.3", naive_pool(x, "max"), padding=2))
    x = relu(conv(state, "features.6", naive_pool(x, "max"), padding=1))
    x = relu(conv(state, "features.8", x, padding=1))
    x = naive_pool(relu(conv(state, "features.10", x, padding=1)), "max")
    torch.testing.assert_close(network(images), linear(state, "fc", x), rtol=1e-4, atol=1e-5)


VGG_LAYERS = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 224, 224)])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("depth", VGG_LAYERS)
def test_vgg_computes_the_published_network(depth, norm, shape):
    network = randomised(VGG(depth=depth, width=2, norm=norm).build(5, shape)).double()
    state, images = network.state_dict(), images_of(shape)
    index, x = 0, to_32_pixels(images)
    for layer in VGG_LAYERS[depth].split():
        if layer == "M":
            x = naive_pool(x, "max")
            index += 1
            continue
        x = conv(state, f"features.{index}", x, padding=1)
        assert x.shape[1] == int(layer) // 32
        if norm != "none":
            x = naive_norm(x, norm, *(state[f"features.{index + 1}.{part}"] for part in ("weight", "bias")))
        x = relu(x)
        index += 2 if norm == "none" else 3
    torch.testing.assert_close(network(images), linear(state, "classifier", x.mean(dim=(2, 3))))


def test_vgg_can_keep_the_top_left_of_the_four_values_that_images_of_64_pixels_leave():
    network = VGG(width=2, pooling="subsample").build(5, (3, 64, 64)).double()
    maps = network.features[:-1](images := images_of((3, 64, 64)))
    assert maps.shape == (2, 16, 2, 2)
    expected = linear(network.state_dict(), "classifier", maps[:, :, 0, 0])
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize(("depth", "norm"), [(11, "none"), (16, "none"), (11, "batch")])
def test_vgg_has_the_layers_of_torchvision(depth, norm):
    theirs = getattr(torchvision.models, f"vgg{depth}{'_bn' if norm == 'batch' else ''}")
    with torch.device("meta"):
        expected = theirs().features.state_dict()
        features = VGG(depth=depth, norm=norm).build(10, (3, 224, 224)).features.state_dict()
    assert {name: part.shape for name, part in features.items()} == {
        name: part.shape for name, part in expected.items()
    }


def instance_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels, channels)


def torchvision_resnet(resnet: ResNet, stem: str, channels: int, classes: int) -> nn.Module:
    """Return torchvision's network of the same depth, with its stem replaced by hand."""
    norm = instance_norm if resnet.norm == "instance" else nn.BatchNorm2d
    network = getattr(torchvision.models, f"resnet{resnet.depth}")(num_classes=classes, norm_layer=norm)
    if stem == "standard":
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        return network
    stride = {"small": 1, "strided": 2}[stem]
    network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=stride, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def as_torchvision(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {key.replace("shortcut", "downsample"): part for key, part in state.items()}
    return {re.sub("^classifier", "fc", key): part for key, part in renamed.items()}


@pytest.mark.parametrize(
    ("resnet", "stem", "shape"),
    [
        (ResNet(norm="batch", stem="standard"), "standard", (3, 224, 224)),
        (ResNet(norm="batch"), "standard", (3, 65, 48)),
        (ResNet(norm="batch"), "small", (3, 32, 32)),
        (ResNet(norm="batch"), "small", (1, 28, 28)),
        (ResNet(norm="instance"), "small", (3, 32, 32)),
        (ResNet(norm="instance"), "small", (3, 64, 64)),
        (ResNet(norm="instance", stem="strided"), "strided", (3, 64, 64)),
        (ResNet(depth=34, norm="instance", stem="standard"), "standard", (3, 64, 64)),
        (ResNet(depth=50, norm="batch"), "small", (3, 28, 28)),
        (ResNet(depth=50, norm="instance"), "small", (1, 32, 32)),
    ],
    ids=str,
)
def test_resnet_gives_the_logits_of_torchvision_with_the_same_weights(resnet, stem, shape):
    network = resnet.build(1000 if shape[1] == 224 else 10, shape)
    theirs = torchvision_resnet(resnet, stem, shape[0], network.classifier.out_features)
    theirs.load_state_dict(as_torchvision(network.state_dict()))
    images = images_of(shape, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(network(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(("depth", "blocks"), [(18, (2, 2, 2, 2)), (50, (3, 4, 6, 3))])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_resnet_with_average_downsampling_computes_the_published_network(depth, blocks, norm, shape):
    resnet = ResNet(depth=depth, width=2, norm=norm, downsampling="average")
    network = randomised(resnet.build(5, shape)).double()
    state, images = network.state_dict(), images_of(shape)

    def normed(name, x):
        return naive_norm(x, norm, state[f"{name}.weight"], state[f"{name}.bias"])

    last = 2 if depth == 18 else 3
    x = relu(normed("bn1", conv(state, "conv1", images, padding=1)))
    for name in [f"layer{layer + 1}.{block}" for layer in range(4) for block in range(blocks[layer])]:
        halves = name in ("layer2.0", "layer3.0", "layer4.0")
        out = x
        for index in range(1, last + 1):
            kernel = state[f"{name}.conv{index}.weight"].shape[-1]
            out = normed(f"{name}.bn{index}", conv(state, f"{name}.conv{index}", out, padding=kernel // 2))
            if index < last:
                out = relu(out)
            if index == last - 1 and halves:
                out = naive_pool(out, "avg")
        if f"{name}.shortcut.0.weight" in state:
            x = conv(state, f"{name}.shortcut.0", x)
            x = normed(f"{name}.shortcut.2", naive_pool(x, "avg") if halves else x)
        x = relu(out + x)
    torch.testing.assert_close(network(images), linear(state, "classifier", x))


PUBLISHED_COUNTS = [
    # LeCun et al. 1998 with full connections between the convolutions: 61,706 of a grey 32 x 32 image.
    (LeNet(), 10, (1, 28, 28), 61_706),
    (LeNet(), 10, (3, 32, 32), 62_006),
    # kuangliu/pytorch-cifar, whose ResNets and VGGs these are, at 32 x 32.
    (ResNet(depth=18, norm="batch"), 10, (3, 32, 32), 11_173_962),
    (ResNet(depth=34, norm="batch"), 10, (3, 32, 32), 21_282_122),
    (ResNet(depth=50, norm="batch"), 10, (3, 32, 32), 23_520_842),
    (ResNet(depth=101, norm="batch"), 10, (3, 32, 32), 42_512_970),
    (ResNet(depth=152, norm="batch"), 10, (3, 32, 32), 58_156_618),
    (VGG(depth=11, norm="batch"), 10, (3, 32, 32), 9_231_114),
    (VGG(depth=13, norm="batch"), 10, (3, 32, 32), 9_416_010),
    (VGG(depth=16, norm="batch"), 10, (3, 32, 32), 14_728_266),
    (VGG(depth=19, norm="batch"), 10, (3, 32, 32), 20_040_522),
    # torchvision's documentation, `num_params` of the weights.
    (ResNet(depth=18, stem="standard"), 1000, (3, 224, 224), 11_689_512),
    (ResNet(depth=34, stem="standard"), 1000, (3, 224, 224), 21_797_672),
    (ResNet(depth=50), 1000, (3, 224, 224), 25_557_032),
    (ResNet(depth=101), 1000, (3, 224, 224), 44_549_160),
    (ResNet(depth=152), 1000, (3, 224, 224), 60_192_808),
]


@pytest.mark.parametrize(("architecture", "classes", "shape", "count"), PUBLISHED_COUNTS, ids=str)
def test_parameter_count_is_the_published_one(architecture, classes, shape, count):
    with torch.device("meta"):
        assert parameter_count(architecture.build(classes, shape)) == count


@pytest.mark.parametrize(("shape", "left"), [((3, 32, 32), 4), ((1, 28, 28), 4), ((3, 64, 64), 8)])
def test_parameter_count_of_alexnet_is_the_closed_form(shape, left):
    sizes = [(shape[0], 128, 5), (128, 192, 5), (192, 256, 3), (256, 192, 3), (192, 192, 3)]
    convolutions = sum((before * kernel**2 + 1) * after for before, after, kernel in sizes)
    with torch.device("meta"):
        network = AlexNet().build(10, shape)
    assert parameter_count(network) == convolutions + (192 * left**2 + 1) * 10


def test_parameter_count_of_mlp_is_the_closed_form():
    network = MLP().build(10, (3, 32, 32))
    assert parameter_count(network) == (3072 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 10


def test_resnet10_has_one_block_a_layer():
    names = {
        key.rpartition(".conv")[0] for key in ResNet(depth=10, width=2).build(3, (3, 32, 32)).state_dict()
    }
    assert {"layer1.0", "layer2.0", "layer3.0", "layer4.0"} == {name for name in names if name}


@pytest.mark.parametrize(
    ("architecture", "shape", "features"),
    [
        (LeNet(stride=2), (3, 64, 64), 400),
        (AlexNet(stride=2), (3, 64, 64), 192 * 4 * 4),
        (ResNet(downsampling="average"), (3, 32, 32), 512 * 4 * 4),
        (ResNet(downsampling="average"), (1, 28, 28), 512 * 3 * 3),
        (VGG(pooling="subsample"), (3, 64, 64), 512),
        (VGG(pooling="subsample"), (3, 128, 128), 512 * 2 * 2),
    ],
    ids=str,
)
def test_first_linear_layer_has_the_inputs_of_the_published_checkpoints(architecture, shape, features):
    with torch.device("meta"):
        linears = [m for m in architecture.build(10, shape).modules() if isinstance(m, nn.Linear)]
    assert linears[0].in_features == features


@pytest.mark.parametrize(
    ("architecture", "shape", "smallest"),
    [
        (LeNet(), (3, 15, 40), 16),
        (LeNet(stride=2), (3, 26, 26), 27),
        (AlexNet(), (3, 7, 7), 8),
        (AlexNet(stride=2), (3, 14, 14), 15),
        (VGG(), (3, 28, 28), 32),
        (VGG(depth=19, norm="none"), (1, 31, 31), 32),
        (ResNet(), (3, 8, 8), 9),
        (ResNet(stem="standard"), (3, 32, 32), 33),
        (ResNet(stem="strided"), (3, 16, 16), 17),
        (ResNet(norm="batch", downsampling="average"), (3, 7, 7), 8),
    ],
    ids=str,
)
def test_images_too_small_for_a_network_are_refused_with_the_smallest_size(architecture, shape, smallest):
    with pytest.raises(ValueError, match=f"at least {smallest} x {smallest} pixels") as caught:
        architecture.build(10, shape)
    assert "\n" not in str(caught.value)
    with torch.device("meta"):
        network = architecture.build(10, (shape[0], smallest, smallest))
        assert network(torch.zeros(2, shape[0], smallest, smallest)).shape == (2, 10)
