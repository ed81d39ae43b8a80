"""The family `timm/*`: its names are timm's own, and its networks take the images of a data set."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest
import torch
from ddrank_timm import names
from ddrank_timm.family import TimmFamily

from ddrank_core import ConfigError, DataError
from ddrank_core.spec import parameters_of


def test_members_are_the_models_that_timm_lists():
    import timm

    assert sorted(TimmFamily.members()) == sorted(timm.list_models())


def test_tags_of_weights_are_those_that_timm_lists():
    import timm

    spelt_out = {name: names.tags(name) for name in TimmFamily.members()}
    listed = [model.partition(".") for model in timm.list_models(include_tags=True)]
    assert [(name, tag) for name, _, tag in listed if spelt_out[name] and tag not in spelt_out[name]] == []
    assert sum(bool(tag and spelt_out[name]) for name, _, tag in listed) > 1000


def test_words_of_timm_are_those_of_its_functions():
    import timm

    for name in TimmFamily.members():
        own = inspect.getdoc(timm.models.model_entrypoint(name)) or ""
        assert names.docstring(name) == " ".join(own.partition("\n\n")[0].split())


def test_listing_and_choosing_import_neither_timm_nor_torch():
    program = """
import json, sys
from ddrank_core.spec import parameters_of
import ddrank_timm, ddrank_losses, ddrank_labels, ddrank_networks
from ddrank_timm import names
from ddrank_timm.family import TimmFamily
specs = [*ddrank_timm.ddrank_architectures(), *ddrank_losses.ddrank_losses(),
         *ddrank_labels.ddrank_label_mappings(), *ddrank_networks.ddrank_architectures()]
for spec in specs:
    module, _, name = spec.target.partition(":")
    __import__(module)
    target = getattr(sys.modules[module], name)
    if not spec.is_family:
        parameters_of(target)
        target()
assert "resnet18" in TimmFamily.members()
parameters_of(TimmFamily.component("resnet18.a1_in1k"))
print(json.dumps([len(specs), *(m for m in ("torch", "timm", "numpy", "kornia") if m in sys.modules)]))
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    components, *heavy = json.loads(output)
    assert heavy == []
    assert components >= 9


def test_a_member_says_what_it_is_and_where_it_is_from():
    component = TimmFamily.component("resnet18")
    assert component.__name__ == "Resnet18"
    assert component.__doc__.startswith("Build timm's resnet18.\n\nIn the words of timm: ")
    assert component.__doc__.endswith("timm/models/resnet.py.")
    assert [field.name for field in parameters_of(component)] == [
        "pretrained",
        "drop_rate",
        "drop_path_rate",
        "stem",
    ]


def test_a_member_is_one_class():
    assert TimmFamily.component("resnet18") is TimmFamily.component("resnet18")
    assert TimmFamily.component("resnet18")() != TimmFamily.component("resnet34")()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("resnet18.a9_in1k", "no weights 'a9_in1k'; it has a1_in1k"),
        ("resnet18.", "no weights ''"),
        ("nothing", "no"),
    ],
)
def test_an_unknown_member_or_tag_is_refused_in_one_line(member, message):
    with pytest.raises(ConfigError, match=message) as caught:
        TimmFamily.component(member)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_networks_take_small_images_of_any_channels(name, channels):
    network = TimmFamily.component(name)().build(7, (channels, 32, 32))
    assert network.training
    assert network.eval()(torch.zeros(2, channels, 32, 32)).shape == (2, 7)


def test_the_same_seed_builds_the_same_network_as_timm():
    import timm

    torch.manual_seed(3)
    ours = TimmFamily.component("test_vit")().build(7, (1, 32, 48)).state_dict()
    torch.manual_seed(3)
    theirs = timm.create_model("test_vit", num_classes=7, in_chans=1, img_size=(32, 48)).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_checking_a_network_neither_draws_random_numbers_nor_changes_it():
    import timm

    torch.manual_seed(3)
    ours = TimmFamily.component("test_resnet")().build(7, (3, 32, 32))
    after_ours = torch.rand(1)
    torch.manual_seed(3)
    theirs = timm.create_model("test_resnet", num_classes=7, in_chans=3)
    assert torch.equal(after_ours, torch.rand(1))
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_dropout_and_stochastic_depth_reach_the_network():
    from timm.layers import DropPath

    network = TimmFamily.component("test_resnet")(drop_rate=0.25, drop_path_rate=0.1).build(7, (3, 32, 32))
    assert network.drop_rate == 0.25
    assert any(isinstance(module, DropPath) and module.drop_prob > 0 for module in network.modules())


@pytest.mark.parametrize(
    ("name", "parameters", "shape", "message"),
    [
        ("test_vit", {}, (1, 28, 28), "patches of 16 x 16 tile, got 28 x 28"),
        ("test_vit", {}, (3, 32, 40), "patches of 16 x 16 tile, got 32 x 40"),
        ("inception_v3", {}, (3, 32, 32), "does not take images of 3 x 32 x 32"),
        ("vgg11", {"drop_path_rate": 0.1}, (3, 32, 32), "drop_path_rate"),
        ("test_vit", {"drop_rate": 0.1, "drop_path_rate": 0.1}, (3, 8, 8), "got 8 x 8"),
    ],
)
def test_images_and_parameters_that_a_network_does_not_take_are_one_line(name, parameters, shape, message):
    with pytest.raises(ValueError, match=message) as caught:
        TimmFamily.component(name)(**parameters).build(7, shape)
    assert str(caught.value).startswith(f"timm/{name} ")
    assert "\n" not in str(caught.value)


def small(name, shape=(3, 32, 32), classes=10):
    return TimmFamily.component(name)(stem="small").build(classes, shape)


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Of the CIFAR ResNets of kuangliu/pytorch-cifar, the networks that the small stem makes.
    [("resnet18", 11_173_962), ("resnet34", 21_282_122)],
)
def test_the_small_stem_makes_the_resnets_for_cifar(name, parameters):
    assert parameters == sum(p.numel() for p in small(name).parameters())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_stem_computes_what_torchvisions_resnet_does_after_the_fields_surgery(channels):
    import torchvision

    ours = small("resnet18", (channels, 64, 64)).eval()
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = torch.nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
    theirs.maxpool = torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, channels, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.eval()(images))


@pytest.mark.parametrize(
    ("name", "width"),
    # How much wider the last stage is: by the strides of the stem, 2 and 2 in a ResNet.
    [
        ("test_resnet", 4),  # two more convolutions in its stem, which have stride 1, and a pool
        ("resnetaa34d", 4),  # anti-aliasing stands in place of the pool
        ("resnetrs50", 4),  # a strided convolution stands in place of the pool
        ("resnetv2_18", 4),
        ("densenet121", 4),
        ("test_convnext", 4),
        ("test_efficientnet", 2),
        ("regnetx_002", 2),
        ("test_nfnet", 2),
    ],
)
def test_the_small_stem_keeps_the_size_of_the_images(name, width):
    standard = TimmFamily.component(name)().build(10, (3, 32, 32)).eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before, after = (net.forward_features(images).shape[-1] for net in (standard, small(name).eval()))
    assert width == after // before


def test_the_small_stem_keeps_the_weights_of_a_convolution_that_is_three_by_three():
    torch.manual_seed(1)
    expected = TimmFamily.component("test_efficientnet")().build(10, (3, 32, 32)).state_dict()
    torch.manual_seed(1)
    built = small("test_efficientnet").state_dict()
    assert all(torch.equal(expected[key], built[key]) for key in expected)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_vit", "its first layer embeds patches of the image"),
        ("mixer_s32_224", "its first layer embeds patches of the image"),
        ("test_coatnet", "its layers are sized for the images that they get"),
        ("dla34", "its first convolution has stride 1 as it is"),
        ("repvgg_a0", "it starts with several convolutions, or with none"),
        ("nf_resnet26", "its first convolution is a ScaledStdConv2d"),
    ],
)
def test_a_network_without_such_a_stem_is_one_line(name, reason):
    with pytest.raises(ValueError, match="has no small stem") as caught:
        small(name, (3, 64, 64))
    assert str(caught.value) == f"timm/{name} has no small stem, since {reason}; use stem: standard"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Keep timm's downloads to an empty cache, without a network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_pretrained_weights_that_cannot_be_fetched_are_one_line(hub_cache):
    with pytest.raises(DataError, match="pretrained weights cannot be loaded") as caught:
        TimmFamily.component("test_resnet.r160_in1k")(pretrained=True).build(7, (3, 32, 32))
    assert "\n" not in str(caught.value)


def test_pretrained_weights_that_timm_does_not_have_are_one_line():
    with pytest.raises(DataError, match="has no pretrained weights") as caught:
        TimmFamily.component(_without_weights())(pretrained=True).build(7, (3, 32, 32))
    assert "\n" not in str(caught.value)


def _without_weights() -> str:
    import timm

    with_weights = set(timm.list_models(pretrained=True, include_tags=False))
    return next(name for name in timm.list_models("resnet*") if name not in with_weights)


def test_pretrained_weights_replace_the_initial_ones_but_not_the_classifier(hub_cache):
    import timm
    from safetensors.torch import save_file

    trained = timm.create_model("test_resnet.r160_in1k").state_dict()
    repository = hub_cache / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(trained, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    network = TimmFamily.component("test_resnet.r160_in1k")(pretrained=True).build(7, (3, 32, 32))
    built = network.state_dict()
    assert torch.equal(built["layer1.0.conv1.weight"], trained["layer1.0.conv1.weight"])
    assert built["fc.weight"].shape[0] == 7


def test_a_pretrained_tag_is_taken_by_the_registry_and_a_wrong_one_is_one_line():
    from ddrank_core.errors import DDRankError
    from ddrank_core.registry import default_registry

    registry = default_registry()
    assert registry.load("architecture", "timm/resnet18.a1_in1k")
    with pytest.raises(DDRankError) as caught:
        registry.load("architecture", "timm/resnet18.a1_in1kx")
    assert "a1_in1k" in str(caught.value)
    assert "\n" not in str(caught.value)
