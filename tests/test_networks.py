"""The ConvNet against its published definition, written out in plain functional torch."""

from __future__ import annotations

import itertools

import pytest
import torch
from ddrank_networks.convnet import ConvNet
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


def test_many_convnets_are_computed_as_one():
    networks = [ConvNet(depth=2, width=4).build(3, (1, 8, 8)) for _ in range(3)]
    images = torch.randn(3, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    parameters, buffers = torch.func.stack_module_state(networks)

    def forward(own_parameters, own_buffers, own_images):
        return torch.func.functional_call(networks[0], (own_parameters, own_buffers), (own_images,))

    together = torch.func.vmap(forward)(parameters, buffers, images)
    one_by_one = torch.stack([network(batch) for network, batch in zip(networks, images, strict=True)])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)


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
