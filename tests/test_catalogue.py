"""Everything that the issue names is listed, and every component of the registry keeps its contract.

The contract is the conformance kit's, to which our own components are held as anyone's; the tests here are of
what is ours alone. What a component computes is checked elsewhere, with references.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path

import attrs
import pytest
import torch
import yaml
from catalogue import (
    CLASSES,
    EVERY,
    NAMES,
    NEEDED,
    PROMISED,
    REGISTRY,
    SAMPLED,
    SHAPES,
    SMALL,
    asked,
    attempt,
    built,
    chosen,
    distinct_architectures,
    entry_of,
    made,
    randomness,
    required,
    smallest_network,
)
from torch.nn import functional as F

from ddrank_core import DatasetFacts, RealData
from ddrank_core.cli.main import main
from ddrank_core.cli.show import PLACE
from ddrank_core.cli.sinks import parsed
from ddrank_core.config import FullRecipe, Recipe, RunConfig
from ddrank_core.registry import ALL_KINDS
from ddrank_core.results import TrialResult
from ddrank_core.structure import Structurer
from ddrank_core.testing import conformance_tests
from ddrank_core.testing.label_mappings import SOFT_KINDS, teachers, view
from ddrank_core.testing.losses import HARD, LOGITS
from ddrank_core.testing.methods import real_data

# torchvision 0.29 says of `JPEG` alone that it will go; members are read from what is installed.
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")

BARE = [name for name in NAMES["augmentation"] if "/" not in name]
MEMBERS = {
    "architecture torchvision/*": ("mnasnet0_5", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"),
    "timm/*": ("test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_nfnet", "ghostnet_050"),
}
"""The quickest of the sample, which are held to the whole contract; all of it is to what is ours alone."""
DROPOUT = (
    "timm/ghostnet_050",
    "torchvision/mnasnet0_5",
    "torchvision/mobilenet_v3_small",
    "torchvision/squeezenet1_1",
)
EXPECTED_FAILURES = {
    (
        "dc",
        "mixed images come with mixed labels",
    ): "it fills up with the mean of the batch, as the original does",
    **{(name, "trains in a cohort"): "it has dropout or stochastic depth" for name in DROPOUT},
    (
        "wandb",
        "keeps an event at once",
    ): "a process of its library's writes, which outlives one that is killed",
}


def of_kind(kind):
    return pytest.mark.parametrize("name", NAMES[kind])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small work is slower on many threads, and the sums of some networks depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# What is promised.

ROWS = [
    (kind, words, value) for kind, rows in PROMISED.items() for words, row in rows.items() for value in row
]


def use_of(value):
    return value if isinstance(value, str) else value["use"]


def said(capsys, *arguments):
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def listed(listing):
    """Return kind -> the names in what `ddrank list` prints, short ones too."""
    found = {}
    for section in listing.split("\n\n"):
        kind, *lines = section.splitlines()
        table, _, short = "\n".join(lines).partition("  short names: ")
        names = [line.split()[0] for line in table.splitlines() if line.strip()]
        found[kind] = {*names, *short.replace(",", " ").split()}
    return found


def test_list_shows_every_promised_component_and_every_registered_name(capsys):
    found = listed(said(capsys, "list"))
    assert set(ALL_KINDS) == set(found)
    for kind, _, value in ROWS:
        vendor, slash, _ = use_of(value).partition("/")
        assert (f"{vendor}/*" if slash else vendor) in found[kind]
    for kind in ALL_KINDS:
        assert {entry.name for entry in REGISTRY.entries(kind)} == found[kind]


@pytest.mark.parametrize(
    ("kind", "use"), sorted({(kind, use_of(value)) for kind, _, value in ROWS if "/" in use_of(value)})
)
def test_list_shows_every_promised_member_of_a_family(capsys, kind, use):
    name = use.partition(".")[0]
    assert name in said(capsys, "list", kind, name).splitlines()


@pytest.mark.parametrize(("kind", "words", "value"), ROWS, ids=[f"{k} {v}" for k, _, v in ROWS])
def test_a_config_gets_what_is_promised(kind, words, value):
    made_of_it = Structurer(REGISTRY, Path()).chosen(kind, value)
    assert use_of(value) == made_of_it.use
    given = {key for key in value if key != "use"} if isinstance(value, dict) else set()
    assert given == set(made_of_it.given)


def test_what_is_promised_and_is_no_component_is_a_field_of_the_config():
    fields = {cls: {field.name for field in attrs.fields(cls)} for cls in (RunConfig, Recipe, FullRecipe)}
    assert {"whitening", "validation", "hard", "teachers", "students", "full_data"} <= fields[RunConfig]
    assert {"augmentation", "micro_batch"} <= fields[Recipe] & fields[FullRecipe]


def test_more_components_are_checked_than_are_promised(capsys):
    promised = {kind: {use_of(value) for k, _, value in ROWS if k == kind} for kind in PROMISED}
    assert set(ALL_KINDS) == set(promised) == set(NAMES)
    for kind, uses in promised.items():
        assert {use for use in uses if "/" not in use} <= set(NAMES[kind])
        assert len(NAMES[kind]) == len(set(NAMES[kind])) >= len(uses)
    counts = {kind: f"{len(NAMES[kind])} ({len(promised[kind])} promised)" for kind in ALL_KINDS}
    with capsys.disabled():
        print("\ncomponents checked:", ", ".join(f"{kind} {count}" for kind, count in counts.items()))


def test_what_is_given_for_the_tests_is_what_has_no_default():
    assert {key: set(values) for key, values in NEEDED.items()} == {
        (kind, name): required(kind, name) for kind, name in EVERY if required(kind, name)
    }


def test_what_is_given_for_the_tests_has_no_stale_entry():
    for (kind, name), values in SMALL.items():
        assert name in NAMES[kind]
        assert set(values) <= {field.name for field in attrs.fields(REGISTRY.load(kind, name))}
    for family, members in SAMPLED.items():
        known = set(REGISTRY.members(REGISTRY.find("architecture", family)))
        assert {f"{family[:-1]}{member.partition('.')[0]}" for member in members} <= known


# Every kind.

every = pytest.mark.parametrize(("kind", "name"), EVERY)


test_contract = conformance_tests(
    "ddrank",
    checks=3056,
    examples={name: [values] for (_, name), values in NEEDED.items()},
    members=MEMBERS,
    small={
        **{name: values for (_, name), values in SMALL.items()},
        "resnet": {"width": 8},
        "vgg": {"width": 8},
    },
    image_shapes=dict.fromkeys(BARE, SHAPES),
    expected_failures=EXPECTED_FAILURES,
)


@every
def test_the_example_that_show_gives_is_a_config_of_the_defaults(capsys, kind, name):
    shown = said(capsys, "show", kind, name).partition("\nExample:\n\n")[2]
    if kind == "sink":
        value = parsed(shlex.split(shown)[-1])
    else:
        value = yaml.safe_load(shown)
        for step in PLACE[kind]:
            assert list(value) == [step]
            value = value[step]
    placeholders = {key for key, item in value.items() if str(item).startswith("<")}
    assert required(kind, name) == placeholders
    filled = {**value, **asked(kind, name)}
    assert chosen(kind, name) == Structurer(REGISTRY, Path()).chosen(kind, filled)


# Augmentations.


def pictures(channels, height=32, dtype=torch.float32):
    return torch.rand(4, channels, height, 32, generator=torch.Generator().manual_seed(0), dtype=dtype)


@of_kind("augmentation")
def test_an_augmentation_takes_images_of_float64_too_or_names_itself_in_refusing(name):
    augmentation, images = made("augmentation", name), pictures(3, dtype=torch.float64)
    augmented, refused = attempt(partial(augmentation, images, randomness(1)))
    if "/" not in name:
        assert augmented.images.dtype == torch.float64
    assert refused is None or str(refused).startswith(f"{name}: ")


@pytest.mark.parametrize("name", BARE)
def test_a_bare_augmentation_depends_on_its_seed_unless_it_does_nothing(name):
    augmentation, images = made("augmentation", name), pictures(3)
    views = [augmentation(images, randomness(seed)).images for seed in range(5)]
    assert any(not torch.equal(views[0], view) for view in views) == (name != "none")


def test_mixup_is_the_weighted_sum_that_its_mixing_says():
    images = pictures(3)
    augmented = made("augmentation", "mixup")(images, randomness(1))
    weight, partner = augmented.mixing.weight.view(-1, 1, 1, 1), augmented.mixing.partner
    torch.testing.assert_close(augmented.images, weight * images + (1 - weight) * images[partner])


def test_cutmix_takes_every_pixel_from_one_of_the_two_and_the_shares_that_its_mixing_says():
    images = pictures(3)
    augmented = made("augmentation", "cutmix", per="image")(images, randomness(1))
    own = (augmented.images == images).all(dim=1)
    other = (augmented.images == images[augmented.mixing.partner]).all(dim=1)
    assert (own | other).all()
    mixed = augmented.mixing.partner != torch.arange(len(images))
    assert mixed.any()
    torch.testing.assert_close(own.float().mean(dim=(1, 2))[mixed], augmented.mixing.weight[mixed])


# Losses and label mappings.

views = pytest.mark.parametrize(
    "view",
    [view(kind, mixed) for mixed in (False, True) for kind in SOFT_KINDS],
    ids=lambda seen: f"{'plain' if seen.mixing is None else 'mixed'} {seen.soft_kind}",
)


def is_refused(loss, targets):
    """Say whether a loss has, by its own word, no meaning with some targets."""
    if targets.soft is None:
        return getattr(loss, "needs_soft", False)
    return targets.soft_kind == "probabilities" and getattr(loss, "needs_logits", False)


@of_kind("label-mapping")
@pytest.mark.parametrize("loss", NAMES["loss"])
@views
def test_every_loss_takes_the_targets_of_every_label_mapping_or_has_said_that_it_does_not(name, loss, view):
    loss = made("loss", loss)
    targets = made("label-mapping", name)(view, teachers)
    assert torch.equal(HARD, targets.hard)
    if is_refused(loss, targets):
        with pytest.raises(ValueError, match="label"):
            loss(LOGITS, targets)
    else:
        assert loss(LOGITS, targets).isfinite()


# Architectures. Names that stand for the same network are checked as one.

NETWORKS = distinct_architectures()


@pytest.fixture(
    scope="module",
    params=[pytest.param(network, id=" = ".join(names)) for network, names in NETWORKS.items()],
)
def smallest(request):
    """Give an architecture, its network of seed 0 for small images of three channels, and their shape.

    Building takes the longest, so that the tests share the network and work on copies.
    """
    return request.param, *smallest_network(request.param)


def test_every_name_of_a_network_is_checked():
    assert sorted(NAMES["architecture"]) == sorted(name for names in NETWORKS.values() for name in names)


def weights_without_gradient(network, shape, seed):
    """Return the names of the weights that no gradient has reached, after one more step backwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        logits = network(torch.randn(2, *shape))
    assert (2, CLASSES) == logits.shape
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(weights.grad.isfinite().all() for weights in network.parameters())
    # A bias in front of a norm has no effect, and no gradient.
    return [
        name for name, weights in network.named_parameters() if weights.ndim > 1 and not weights.grad.any()
    ]


def test_a_gradient_reaches_every_weight_of_a_network(smallest):
    _, built_network, shape = smallest
    assert built_network.training
    network = deepcopy(built_network)
    with torch.no_grad():
        for weights in network.parameters():
            # Some networks start the last layers of their blocks from zero, which lets no gradient through.
            if not weights.any():
                weights.fill_(0.1)
    # Stochastic depth leaves some blocks out of every step.
    assert any(weights_without_gradient(network, shape, seed) == [] for seed in range(4))


def test_a_network_is_given_by_its_seed(smallest):
    architecture, network, shape = smallest
    first, second = network.state_dict(), built(architecture, shape).state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_network_is_deterministic_in_evaluation(smallest):
    _, built_network, shape = smallest
    network = deepcopy(built_network).eval()
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = network(image)
        assert (1, CLASSES) == logits.shape
        assert torch.equal(logits, network(image))


@pytest.mark.parametrize(
    "name", [name for name in NAMES["architecture"] if not entry_of("architecture", name).spec.preset]
)
def test_a_network_takes_grey_images_too(name):
    network, shape = smallest_network(made("architecture", name), channels=1)
    assert (2, CLASSES) == network.eval()(torch.rand(2, *shape)).shape


@pytest.mark.parametrize("name", [names[0] for names in NETWORKS.values()])
def test_a_network_takes_images_of_one_pixel_or_says_in_one_line_that_it_does_not(name):
    network, refused = attempt(partial(built, made("architecture", name), (3, 1, 1)))
    if refused is None:
        assert (2, CLASSES) == network.eval()(torch.rand(2, 3, 1, 1)).shape
    else:
        assert re.search(r"1 x 1|\(1, 1\)|=1\b", str(refused))


# Optimisers, schedules and protocols.


@of_kind("optimizer")
def test_an_optimizer_takes_its_parameters_and_goes_downhill_at_the_rate_it_is_given(name):
    component = made("optimizer", name)
    weights = [torch.nn.Parameter(torch.tensor([3.0, -2.0])), torch.nn.Parameter(torch.zeros(2, 2))]
    optimizer = component.build(iter(weights), 0.05)
    held = [id(w) for group in optimizer.param_groups for w in group["params"]]
    assert [id(w) for w in weights] == held
    assert {group["lr"] for group in optimizer.param_groups} == {0.05}
    # `decay_on` says which parameters `weight_decay` is for, by default all.
    for field in set(attrs.asdict(component)) - {"decay_on"}:
        assert {getattr(component, field)} == {group[field] for group in optimizer.param_groups}
    distances = []
    for _ in range(60):
        optimizer.zero_grad()
        distance = sum((w - 1).square().sum() for w in weights)
        distance.backward()
        optimizer.step()
        distances.append(distance.item())
    assert distances[-1] < 0.1 * distances[0]
    before = [w.detach().clone() for w in weights]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(before, weights, strict=True))


EPOCHS = 20


@of_kind("schedule")
def test_a_schedule_rises_only_while_it_warms_up_and_then_falls_from_one(name):
    schedule = made("schedule", name)
    factors = [schedule.factor(epoch, EPOCHS) for epoch in range(EPOCHS)]
    assert factors == [schedule.factor(epoch, EPOCHS) for epoch in range(EPOCHS)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] == getattr(schedule, "start", 1)
    rise = getattr(schedule, "epochs", 0)
    assert factors[: rise + 1] == sorted(factors[: rise + 1])
    assert factors[rise] == 1
    assert factors[rise:] == sorted(factors[rise:], reverse=True)


@of_kind("schedule")
def test_every_schedule_may_follow_a_warmup(name):
    warmup = made("schedule", "warmup", epochs=5, then=asked("schedule", name))
    follower = made("schedule", name)
    factors = [warmup.factor(epoch, 5 + EPOCHS) for epoch in range(5, 5 + EPOCHS)]
    assert factors == [follower.factor(epoch, EPOCHS) for epoch in range(EPOCHS)]


def trial(repeat, rate):
    accuracy = rate + repeat / 1000
    return TrialResult(
        arm="syn-any",
        phase="final",
        repeat=repeat,
        learning_rate=rate,
        seed=repeat,
        subset_seed=None,
        validation_accuracy=accuracy,
        accuracy=accuracy,
        epoch=EPOCHS,
        diverged=False,
        seconds=1.0,
    )


@of_kind("protocol")
def test_a_protocol_selects_the_better_rate_of_each_repeat_and_scores_the_last_epoch_if_any(name):
    protocol = made("protocol", name)
    trials = [trial(repeat, rate) for rate in (0.1, 0.5, 0.01) for repeat in range(protocol.repeats)]
    assert tuple(trial(repeat, 0.5) for repeat in range(protocol.repeats)) == protocol.select(trials)
    assert all(0 <= protocol.validation_share((0.1,) * count) < 1 for count in (1, 2))
    epochs = protocol.test_epochs(EPOCHS + 1)
    assert list(epochs) == sorted(set(epochs))
    assert set(epochs) <= set(range(1, EPOCHS + 2))
    assert epochs == () or epochs[-1] == EPOCHS + 1
    assert protocol.version
    assert all(rate > 0 for rate in protocol.learning_rates)


# Data sets.


def data_at(name, folder):
    """Return a data set whose files would be in `folder`, and the path that it was given."""
    paths = [f.name for f in attrs.fields(REGISTRY.load("dataset", name)) if f.type is Path]
    assert len(paths) == (0 if name == "digits" else 1)
    path = folder / "arrays.npz" if paths == ["path"] else folder
    return made("dataset", name, **{field: str(path) for field in paths}), path


@of_kind("dataset")
def test_a_data_set_states_its_facts_without_its_files(name, tmp_path):
    data, _ = data_at(name, tmp_path / "missing")
    facts = data.facts()
    assert isinstance(facts, DatasetFacts)
    assert all((facts.source, facts.licence, facts.class_order, facts.statistics))
    assert len(facts.mean) == len(facts.std)
    assert facts.mean == () or facts.image_shape is None or len(facts.mean) == facts.image_shape[0]
    assert facts.class_names == () or len(facts.class_names) == facts.num_classes
    assert (facts.found is None) == (name != "digits")


def test_digits_are_what_their_facts_say():
    data = made("dataset", "digits")
    loaded, facts = data.load(), data.facts()
    assert isinstance(loaded, RealData)
    assert (loaded.image_shape, loaded.class_names) == (facts.image_shape, facts.class_names)
    assert (len(loaded.train_images), len(loaded.test_images)) == (facts.train_images, facts.test_images)
    assert (loaded.mean, loaded.std) == (facts.mean, facts.std)
    pixels = loaded.train_images.double()
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx((*facts.mean, *facts.std), rel=1e-4)


# Methods.


@of_kind("method")
def test_a_method_says_what_it_is_and_distils_other_images_from_another_seed(name):
    method, network = made("method", name), made("architecture", "convnet", depth=1, width=4)
    data = real_data()
    first, second = (
        method.distill(data, network, 2, "cpu", seed, lambda step, steps: None) for seed in (1, 2)
    )
    assert (first.space.kind, first.space.mean) == ("normalised", data.mean)
    assert first.info["method"] == name
    assert not torch.equal(first.images, second.images)
