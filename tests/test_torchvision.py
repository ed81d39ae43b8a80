"""The two families `torchvision/*`, against torchvision itself and networks written out by hand."""

from __future__ import annotations

import inspect
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from ddrank_torchvision import networks, sources
from ddrank_torchvision.arguments import NO_VALUE, value_of
from ddrank_torchvision.augmentations import TorchvisionAugmentation, TorchvisionAugmentations
from ddrank_torchvision.networks import TorchvisionNetworks
from ddrank_torchvision.transforms import transform
from PIL import Image, ImageOps
from torch import nn
from torchvision.transforms import v2

from ddrank_core import ConfigError, DataError, Randomness
from ddrank_core.errors import PluginError
from ddrank_core.protocols import Augmentation
from ddrank_core.registry import default_registry
from ddrank_core.spec import parameters_of
from ddrank_core.structure import Chosen, Structurer, plain

# torchvision 0.29 says of `JPEG` alone that it will go; members are read from what is installed.
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")

MEMBERS = TorchvisionAugmentations.members()
REQUIRED = {
    "CenterCrop": {"size": 16},
    "ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2},
    "ElasticTransform": {"sigma": 1.0},
    "GaussianBlur": {"kernel_size": 3},
    "Grayscale": {"num_output_channels": 3},
    "JPEG": {"quality": (20, 80)},
    "Pad": {"padding": 0},
    "RandomAdjustSharpness": {"sharpness_factor": 2.0},
    "RandomAffine": {"degrees": 15.0, "translate": (0.1, 0.2), "shear": 10.0},
    "RandomCrop": {"size": 16, "padding": 4},
    "RandomErasing": {"value": "random"},
    "RandomPosterize": {"bits": 3},
    "RandomResizedCrop": {"size": 16},
    "RandomRotation": {"degrees": 15.0},
    "RandomSolarize": {"threshold": 0.5},
    "Resize": {"size": 16},
}
# What is no view of one image: mixes, returns several or of a drawn size, wants boxes, converts.
NOT_OFFERED = {
    *("MixUp", "CutMix", "FiveCrop", "TenCrop", "RandomIoUCrop"),
    *("RandomResize", "RandomShortestSize", "RandomZoomOut", "ScaleJitter"),
    *("Compose", "RandomApply", "RandomChoice", "RandomOrder"),
    *("Lambda", "Identity", "Normalize", "LinearTransformation", "ToDtype"),
    *("ConvertImageDtype", "ToImage", "ToPILImage", "PILToTensor", "ToPureTensor", "ToTensor"),
    *(
        "UniformTemporalSubsample",
        "ClampBoundingBoxes",
        "ClampKeyPoints",
        "ConvertBoundingBoxFormat",
        "SetClampingMode",
        "SanitizeBoundingBoxes",
        "SanitizeKeyPoints",
    ),
}


def build(name, classes=10, shape=(3, 32, 32), **parameters):
    return TorchvisionNetworks.component(name)(**parameters).build(classes, shape)


def convolutions_and_pools(network):
    kinds = (nn.Conv2d, nn.MaxPool2d)
    return [module for module in network.modules() if isinstance(module, kinds)]


def test_members_are_the_classifiers_that_torchvision_lists():
    listed = torchvision.models.list_models(module=torchvision.models)
    assert sorted(TorchvisionNetworks.members()) == listed
    assert "resnet18" in listed


def test_a_network_says_what_it_is_and_where_it_is_from():
    component = TorchvisionNetworks.component("resnet18")
    assert component.__doc__ == (
        "Build torchvision's resnet18.\n\nIn the words of torchvision: ResNet-18 from Deep Residual "
        "Learning for Image Recognition (https://arxiv.org/abs/1512.03385).\n\n"
        "Source: pytorch/vision, torchvision/models/resnet.py."
    )
    assert [field.name for field in parameters_of(component)] == ["pretrained", "dropout", "stem"]


@pytest.mark.parametrize("name", TorchvisionNetworks.members())
def test_every_network_is_described(name):
    words = sources.docstring(name)
    assert len(words) > 10
    assert not {"`", "<", ":class:"} & set(words.split())


def test_a_network_is_a_value_that_survives_pickling():
    chosen = TorchvisionNetworks.component("resnet18")(stem="small")
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    assert TorchvisionNetworks.component("resnet18") is networks.resnet18
    assert TorchvisionNetworks.component("resnet34")(stem="small") != chosen


def test_an_unknown_network_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="torchvision has no classifier 'resnet19'") as caught:
        TorchvisionNetworks.component("resnet19")
    assert "\n" not in str(caught.value)
    with pytest.raises(AttributeError):
        networks.resnet19  # noqa: B018


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        *(("resnet18", 1), ("resnet18", 3), ("densenet121", 3), ("mobilenet_v3_small", 1)),
        *(("shufflenet_v2_x0_5", 3), ("squeezenet1_1", 1), ("mnasnet0_5", 3), ("efficientnet_b0", 1)),
        *(("regnet_y_400mf", 3), ("googlenet", 1), ("swin_t", 3), ("convnext_tiny", 1)),
    ],
)
def test_networks_take_small_images_of_one_and_three_channels(name, channels):
    network = build(name, 7, (channels, 32, 32))
    assert network.training
    assert network.eval()(torch.rand(2, channels, 32, 32)).shape == (2, 7)


def test_a_vision_transformer_is_built_for_the_size_of_the_images():
    network = build("vit_b_32", shape=(1, 64, 64))
    assert network.encoder.pos_embedding.shape[1] == 1 + (64 // 32) ** 2
    # torchvision draws the patches' weights after LeCun et al., here for patches of one channel.
    assert network.conv_proj.weight.std().item() == pytest.approx((1 / 32**2) ** 0.5, rel=0.01)
    assert network.eval()(torch.rand(2, 1, 64, 64)).shape == (2, 10)


def test_inception_gives_plain_logits_while_it_is_trained():
    network = build("googlenet")
    assert (network.aux1, network.aux2) == (None, None)
    assert network.train()(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "googlenet"])
def test_the_same_seed_builds_the_same_network_as_torchvision_and_draws_no_more(name):
    options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    torch.manual_seed(3)
    ours, after_ours = build(name, 7).state_dict(), torch.rand(1)
    torch.manual_seed(3)
    theirs = torchvision.models.get_model(name, num_classes=7, **options).state_dict()
    assert torch.equal(after_ours, torch.rand(1))
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("name", "deviation"),
    [
        # He et al. by the number of outputs (of one channel: 9 or 49 weights for each), as torchvision draws.
        ("resnet18", (2 / (64 * 49)) ** 0.5),
        ("mobilenet_v2", (2 / (32 * 9)) ** 0.5),
        # He et al. by the number of inputs.
        ("densenet121", (2 / 49) ** 0.5),
        ("squeezenet1_1", (2 / 9) ** 0.5),
        # torch's default for a convolution: uniform up to 1 / sqrt(inputs).
        ("shufflenet_v2_x0_5", (1 / (3 * 9)) ** 0.5),
        ("swin_t", (1 / (3 * 16)) ** 0.5),
    ],
)
def test_a_first_convolution_for_grey_images_is_drawn_as_torchvision_would(name, deviation):
    torch.manual_seed(0)
    first = convolutions_and_pools(build(name, shape=(1, 32, 32)))[0]
    assert first.weight.shape[1] == 1
    assert first.in_channels == 1
    assert first.weight.std().item() == pytest.approx(deviation, rel=0.15)


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Of the CIFAR ResNets of kuangliu/pytorch-cifar, the networks that the small stem makes.
    [("resnet18", 11_173_962), ("resnet34", 21_282_122), ("resnet50", 23_520_842)],
)
def test_the_small_stem_makes_the_resnets_for_cifar(name, parameters):
    network = build(name, stem="small")
    assert parameters == sum(p.numel() for p in network.parameters())


def naive_resnet18(weights, images):
    """Compute the logits of the CIFAR ResNet-18 (He et al. 2016) from its weights, in evaluation mode."""

    def conv_norm(x, conv, norm, stride=1):
        kernel = weights[f"{conv}.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        x = (x - mean.view(1, -1, 1, 1)) / (var.view(1, -1, 1, 1) + 1e-5).sqrt()
        return x * weights[f"{norm}.weight"].view(1, -1, 1, 1) + weights[f"{norm}.bias"].view(1, -1, 1, 1)

    x = conv_norm(images, "conv1", "bn1").clamp(min=0)
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = conv_norm(x, f"{name}.conv1", f"{name}.bn1", stride).clamp(min=0)
            y = conv_norm(y, f"{name}.conv2", f"{name}.bn2")
            if f"{name}.downsample.0.weight" in weights:
                x = conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = (x + y).clamp(min=0)
    return x.mean(dim=(2, 3)) @ weights["fc.weight"].T + weights["fc.bias"]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 64, 64)])
def test_the_small_stem_computes_what_the_resnet_for_cifar_does(shape):
    network = build("resnet18", shape=shape, stem="small").eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    images = torch.randn(2, *shape)
    with torch.no_grad():
        torch.testing.assert_close(network(images), naive_resnet18(network.state_dict(), images))


@pytest.mark.parametrize(
    "name",
    [
        *("resnext50_32x4d", "densenet121", "googlenet", "squeezenet1_0", "mobilenet_v3_small"),
        *("efficientnet_b0", "mnasnet0_5", "regnet_y_400mf", "shufflenet_v2_x0_5", "convnext_tiny"),
    ],
)
def test_the_small_stem_starts_with_three_by_three_and_no_max_pool(name):
    first, second, *_ = convolutions_and_pools(build(name, stem="small"))
    assert (first.kernel_size, first.stride) == ((3, 3), (1, 1))
    assert isinstance(second, nn.Conv2d)


def test_the_small_stem_keeps_the_weights_of_a_convolution_that_is_three_by_three():
    built = []
    for stem in ("standard", "small"):
        torch.manual_seed(1)
        built.append(build("mobilenet_v3_small", stem=stem).state_dict())
    assert all(torch.equal(built[0][key], built[1][key]) for key in built[0])


@pytest.mark.parametrize(
    ("name", "parameters", "shape", "message"),
    [
        (
            "vgg11",
            {"stem": "small"},
            (3, 32, 32),
            "has no small stem, since its first convolution has stride 1",
        ),
        (
            "swin_t",
            {"stem": "small"},
            (3, 32, 32),
            "has no small stem, since it works on patches .*; use stem: standard",
        ),
        ("alexnet", {}, (3, 32, 32), "does not take images of 3 x 32 x 32"),
        ("maxvit_t", {}, (3, 32, 32), r"cannot be built with input_size=\(32, 32\)"),
        ("vit_b_32", {}, (3, 32, 64), "needs square images, got 32 x 64"),
        ("vit_b_32", {}, (3, 40, 40), "cannot be built with image_size=40"),
        ("resnet18", {"dropout": 0.1}, (3, 32, 32), "cannot be built with dropout=0.1"),
        ("resnet18", {}, (4, 32, 32), "takes images of 1 or 3 channels, got 4"),
    ],
)
def test_what_a_network_does_not_take_is_one_line(name, parameters, shape, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(name, shape=shape, **parameters)
    assert str(caught.value).startswith(f"torchvision/{name} ")
    assert "\n" not in str(caught.value)


def test_dropout_reaches_the_network():
    dropouts = [m.p for m in build("mobilenet_v3_small", dropout=0.35).modules() if isinstance(m, nn.Dropout)]
    assert dropouts == [0.35]
    assert build("densenet121", dropout=0.25).features.denseblock1.denselayer1.drop_rate == 0.25


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Keep torchvision's downloads to an empty cache, behind a proxy that nobody serves."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # What opens addresses is made once, with the proxies of that moment.
    monkeypatch.setattr("urllib.request._opener", None)
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def stored(hub, name, **options):
    """Put the weights of a network where torchvision looks for what it downloaded; return them."""
    weights = torchvision.models.get_model(name, **options).state_dict()
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    torch.save(weights, hub / url.rpartition("/")[2])
    return weights


def test_pretrained_weights_replace_the_initial_ones_but_not_the_classifier(hub):
    trained = stored(hub, "shufflenet_v2_x0_5")
    built = build("shufflenet_v2_x0_5", 7, (1, 32, 32), pretrained=True).state_dict()
    own = {"conv1.0.weight", "fc.weight", "fc.bias"}
    same = {key for key, value in built.items() if torch.equal(value, trained[key])}
    assert set(built) - own == same
    assert built["fc.weight"].shape[0] == 7


def test_pretrained_weights_keep_their_classifier_where_there_are_as_many_classes(hub):
    trained = stored(hub, "shufflenet_v2_x0_5")
    built = build("shufflenet_v2_x0_5", 1000, pretrained=True).state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in built.items())


def test_pretrained_googlenet_normalises_its_input_again_and_has_no_auxiliary_classifiers(hub):
    stored(hub, "googlenet", init_weights=False)
    assert build("googlenet", pretrained=True).transform_input
    grey = build("googlenet", shape=(1, 32, 32), pretrained=True)
    assert (grey.transform_input, grey.aux1) == (False, None)


def test_pretrained_weights_that_cannot_be_fetched_are_one_line(hub):
    with pytest.raises(DataError, match="torchvision/squeezenet1_1: its pretrained weights cannot") as caught:
        build("squeezenet1_1", pretrained=True)
    assert "\n" not in str(caught.value)


def randomness(seed=0):
    return Randomness(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed))


def images(batch=4, channels=3, side=16, seed=0):
    """Return images of whole bytes in [0, 1], smooth enough for crops and blurs to leave something."""
    draws = torch.rand(batch, channels, side // 4, side // 4, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(draws, scale_factor=4, mode="bilinear") * 255).round() / 255


def make(member, **parameters):
    return TorchvisionAugmentations.component(member)(**{**REQUIRED.get(member, {}), **parameters})


def reference(member, x, seed, per):
    """Call torchvision's own transform with the seed that the component takes from its generator."""
    own = getattr(v2, member)(**REQUIRED.get(member, {}))
    given = (x * 255).round().to(torch.uint8) if member == "JPEG" else x
    drawn = int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(seed)))
    with torch.random.fork_rng():
        torch.manual_seed(drawn)
        views = own(given) if per == "batch" else torch.stack([own(image) for image in given])
    return views / 255 if member == "JPEG" else views


def test_every_transform_of_one_image_to_one_image_is_offered():
    public = {name for name, value in vars(v2).items() if inspect.isclass(value)}
    transforms = {name for name in public if issubclass(getattr(v2, name), v2.Transform)} - {"Transform"}
    assert transforms - NOT_OFFERED == set(MEMBERS)


@pytest.mark.parametrize("member", MEMBERS)
def test_a_members_parameters_are_its_constructors_arguments(member):
    constructor = dict(inspect.signature(getattr(v2, member)).parameters)
    constructor.pop("inplace", None)
    first, *fields = parameters_of(TorchvisionAugmentations.component(member))
    assert first.name == "per"
    assert list(constructor) == [field.name for field in fields]
    for field in fields:
        default = constructor[field.name].default
        if default is inspect.Parameter.empty:
            assert field.default == attrs.NOTHING
        else:
            assert getattr(default, "value", default) == field.default
        assert field.metadata["doc"]


@pytest.mark.parametrize("per", ["image", "batch"])
@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_does_what_torchvision_does(member, per):
    x = images()
    for seed in (1, 2, 3):
        augmented = make(member, per=per)(x, randomness(seed)).images
        torch.testing.assert_close(augmented, reference(member, x, seed, per))


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_depends_on_its_seed_only_and_leaves_all_else_alone(member):
    augmentation, x = make(member), images() * 1.1 - 0.05
    before, state = x.clone(), torch.get_rng_state()
    python, numbers = random.getstate(), np.random.get_state()[1].copy()
    first = augmentation(x, randomness(1)).images
    assert torch.equal(state, torch.get_rng_state())
    assert python == random.getstate()
    assert (numbers == np.random.get_state()[1]).all()
    torch.manual_seed(4)
    random.seed(4)
    assert torch.equal(first, augmentation(x, randomness(1)).images)
    assert torch.equal(before, x)
    assert (x.shape, x.dtype) == (first.shape, first.dtype)
    assert first.isfinite().all()
    torch.set_rng_state(state)


def test_every_image_is_drawn_for_unless_the_batch_is():
    x = images(1).expand(8, -1, -1, -1)
    each, whole = (make("RandomAffine", per=per)(x, randomness()).images for per in ("image", "batch"))
    assert len({tuple(view.flatten().tolist()) for view in each}) == 8
    assert len({tuple(view.flatten().tolist()) for view in whole}) == 1


def test_equalising_images_outside_the_unit_range_is_that_of_pillow_after_clamping():
    x = images(2) * 1.4 - 0.2
    equalised = make("RandomEqualize", p=1.0)(x, randomness()).images
    for image, view in zip(x.clamp(0, 1), equalised, strict=True):
        bytes_ = (image * 255.999).to(torch.uint8).permute(1, 2, 0).numpy()
        expected = np.asarray(ImageOps.equalize(Image.fromarray(bytes_)))
        np.testing.assert_array_equal(expected, (view * 255).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    "member", ["AutoAugment", "RandAugment", "RandomErasing", "RandomAffine", "ColorJitter"]
)
def test_grey_images_are_taken_too(member):
    x = images(channels=1)
    assert make(member)(x, randomness()).images.shape == x.shape


def structured(value):
    return Structurer(default_registry(), Path()).structure(value, Chosen[Augmentation], "run.yaml")


def test_a_config_gives_torchvisions_parameters_and_gets_them_back():
    value = {
        "use": "torchvision/RandomAffine",
        "degrees": [-5, 10],
        "interpolation": "bilinear",
        "per": "batch",
    }
    chosen = structured(value)
    assert isinstance(chosen.component, TorchvisionAugmentation)
    assert (chosen.component.degrees, chosen.component.fill) == ((-5.0, 10.0), 0)
    written = json.loads(json.dumps(plain(chosen)))
    assert structured(written) == chosen
    assert chosen.component._module.interpolation == v2.InterpolationMode.BILINEAR
    erasing = structured({"use": "torchvision/RandomErasing", "value": "random"}).component
    assert (erasing.value, erasing._module.value) == ("random", None)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"use": "torchvision/RandomAffine"}, "degrees: missing"),
        ({"use": "torchvision/RandomAffine", "degrees": 5, "transalte": [0, 0]}, "did you mean 'translate'"),
        ({"use": "torchvision/RandomRotation", "degrees": 5, "interpolation": "box"}, "one of nearest"),
        ({"use": "torchvision/AutoAugment", "policy": "cifar"}, "did you mean 'cifar10'"),
        ({"use": "torchvision/RandomAfine"}, "did you mean 'torchvision/RandomAffine'"),
        ({"use": "torchvision/MixUp"}, "no augmentation 'torchvision/MixUp'"),
    ],
)
def test_a_wrong_config_is_one_line_that_names_the_field(value, problem):
    with pytest.raises((ConfigError, PluginError)) as caught:
        structured(value)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("per", ["image", "batch"])
@pytest.mark.parametrize(
    ("member", "parameters", "problem"),
    [
        ("CenterCrop", {"size": 8}, "returns images of 3x8x8 for images of 3x16x16; .* must keep the size"),
        ("Grayscale", {"num_output_channels": 1}, "returns images of 1x16x16"),
        ("RandomAffine", {"translate": (3.0, 3.0)}, "torchvision/RandomAffine: translation values"),
        ("RandomSolarize", {"threshold": 128.0, "p": 1.0}, "torchvision/RandomSolarize: Threshold"),
    ],
)
def test_what_torchvision_refuses_is_one_line_that_names_the_member(member, parameters, problem, per):
    with pytest.raises(ValueError, match=problem) as caught:
        make(member, per=per, **parameters)(images(), randomness())
    assert "\n" not in str(caught.value)


def test_an_augmentation_is_a_frozen_value_that_survives_pickling_after_use():
    used, unused = make("RandomAffine"), make("RandomAffine")
    used(images(), randomness())
    again = pickle.loads(pickle.dumps(used))
    assert used == unused == again
    assert hash(used) == hash(unused)
    assert torch.equal(used(images(), randomness()).images, again(images(), randomness()).images)


def test_defaults_are_read_in_every_form_that_torchvision_writes():
    import ast

    written = {
        "(3.0 / 4.0, 4.0 / 3.0)": (3 / 4, 4 / 3),
        "InterpolationMode.NEAREST_EXACT": "nearest-exact",
        "AutoAugmentPolicy.IMAGENET": "imagenet",
        "[-1, 'x', None]": (-1, "x", None),
        "max(1, 2)": NO_VALUE,
    }
    assert list(written.values()) == [value_of(ast.parse(text, mode="eval").body) for text in written]


def test_a_summary_is_the_first_sentence_of_torchvisions_docstring():
    assert transform("RandomCrop").summary == "Crop the input at a random location"
    assert TorchvisionAugmentations.component("RandomCrop").__doc__ == (
        "Crop the input at a random location.\n\nSource: torchvision.transforms.v2.RandomCrop."
    )


def test_torchvision_is_listed_and_described_without_importing_it_or_torch():
    script = (
        "import sys\n"
        "from ddrank_core.spec import parameters_of\n"
        "from ddrank_torchvision.augmentations import TorchvisionAugmentations\n"
        "from ddrank_torchvision.networks import TorchvisionNetworks\n"
        "for family in (TorchvisionAugmentations, TorchvisionNetworks):\n"
        "    for name in family.members(): parameters_of(family.component(name))\n"
        "print(sorted({'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_manifest_names_families_that_are_there():
    registry = default_registry()
    assert registry.load("architecture", "torchvision/resnet18") is TorchvisionNetworks.component("resnet18")
    assert registry.load("augmentation", "torchvision/JPEG") is TorchvisionAugmentations.component("JPEG")
