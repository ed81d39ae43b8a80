"""Everything that the issue names is listed, and every component of the registry keeps its contract.

Each test of a contract runs once for every component of its kind, so that a failure names the component.
What a component computes is checked elsewhere, with references; here it is what the engine relies on.
"""

from __future__ import annotations

import json
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path

import attrs
import numpy as np
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

from ddrank_core import DatasetFacts, Mixing, RealData, Targets, View
from ddrank_core.cli.main import main
from ddrank_core.cli.show import PLACE
from ddrank_core.config import FullRecipe, Recipe, RunConfig
from ddrank_core.errors import DataError, DDRankError
from ddrank_core.registry import ALL_KINDS
from ddrank_core.results import TrialResult
from ddrank_core.structure import Structurer, plain

# torchvision 0.29 says of `JPEG` alone that it will go; members are read from what is installed.
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")

HEAVY = {"torch", "torchvision", "numpy", "timm", "kornia", "sklearn", "matplotlib", "scipy", "PIL"}


def of_kind(kind):
    return pytest.mark.parametrize("name", NAMES[kind])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small work is slower on many threads, and the sums of some networks depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def global_draws_untouched():
    """Fail if what runs inside draws from a generator that is not its own, or seeds one."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    yield
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()


def assert_one_line(error):
    assert str(error).strip()
    assert "\n" not in str(error)


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


@every
def test_a_component_is_a_frozen_value_whose_parameters_are_documented(kind, name):
    component = chosen(kind, name).component
    cls = type(component)
    assert cls is REGISTRY.load(kind, name)
    assert attrs.has(cls)
    assert cls.__doc__.strip()
    for field in attrs.fields(attrs.resolve_types(cls)):
        assert field.kw_only
        assert field.type is not None, field.name
        assert field.metadata["doc"].strip(), field.name
    assert component == chosen(kind, name).component
    assert hash(component) == hash(chosen(kind, name).component)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        component.anything = 1


@every
def test_a_component_survives_being_written_into_a_config_and_read_again(kind, name):
    first = chosen(kind, name)
    for written in (json.loads(json.dumps(plain(first))), yaml.safe_load(yaml.safe_dump(plain(first)))):
        assert Structurer(REGISTRY, Path()).chosen(kind, written) == first


@every
def test_a_component_survives_pickling(kind, name):
    first = chosen(kind, name)
    again = pickle.loads(pickle.dumps(first))
    assert (first, first.entry) == (again, again.entry)


@every
def test_the_example_that_show_gives_is_a_config_of_the_defaults(capsys, kind, name):
    value = yaml.safe_load(said(capsys, "show", kind, name).partition("\nExample:\n\n")[2])
    for step in PLACE[kind]:
        assert list(value) == [step]
        value = value[step]
    placeholders = {key for key, item in value.items() if str(item).startswith("<")}
    assert required(kind, name) == placeholders
    filled = {**value, **asked(kind, name)}
    assert chosen(kind, name) == Structurer(REGISTRY, Path()).chosen(kind, filled)


def test_manifests_and_component_classes_import_nothing_heavy():
    script = """
import json, sys
from ddrank_core.registry import default_registry
from ddrank_core.spec import parameters_of
registry = default_registry()
for kind, name in json.load(sys.stdin):
    parameters_of(registry.load(kind, name))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(EVERY), capture_output=True, text=True, check=True
    )
    assert set() == HEAVY & set(json.loads(done.stdout))


# Augmentations.


def pictures(channels, height=32, dtype=torch.float32):
    return torch.rand(4, channels, height, 32, generator=torch.Generator().manual_seed(0), dtype=dtype)


def assert_keeps_the_contract(augmentation, images):
    """Hold one call to the contract; a refusal must be a ValueError."""
    before = images.clone()
    with global_draws_untouched():
        augmented = augmentation(images, randomness(1))
        augmentation(images, randomness(2))
        again = augmentation(images, randomness(1))
    assert torch.equal(before, images)
    assert (images.shape, images.dtype) == (augmented.images.shape, augmented.images.dtype)
    assert images.device == augmented.images.device
    assert augmented.images.isfinite().all()
    assert torch.equal(augmented.images, again.images)
    assert (augmented.mixing is not None) == getattr(augmentation, "mixes", False)
    if augmented.mixing is not None:
        assert_mixing_is_sound(augmented.mixing, again.mixing, len(images))


def assert_mixing_is_sound(mixing, again, count):
    assert (mixing.partner.dtype, mixing.weight.dtype) == (torch.int64, torch.float32)
    assert mixing.partner.shape == mixing.weight.shape == (count,)
    assert set(mixing.partner.tolist()) <= set(range(count))
    assert 0 <= mixing.weight.min() <= mixing.weight.max() <= 1
    assert torch.equal(mixing.partner, again.partner)
    assert torch.equal(mixing.weight, again.weight)


@of_kind("augmentation")
def test_an_augmentation_gives_another_view_by_its_own_draws(name):
    augmentation, taken = made("augmentation", name), 0
    for images in (pictures(3), pictures(1), pictures(3, dtype=torch.float64)):
        _, refused = attempt(partial(assert_keeps_the_contract, augmentation, images))
        taken += refused is None
        # Of a family's members some need colours; what is refused is refused by name.
        assert refused is None or str(refused).startswith(f"{name}: ")
    assert taken == 3 if "/" not in name else taken >= 1


BARE = [name for name in NAMES["augmentation"] if "/" not in name]


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize(("channels", "height"), [(1, 16), (3, 24)])
def test_a_bare_augmentation_takes_images_that_are_not_square(name, channels, height):
    assert_keeps_the_contract(made("augmentation", name), pictures(channels, height))


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


# Losses.

B, K = 6, 4
LOGITS = torch.randn(B, K, generator=torch.Generator().manual_seed(0))
HARD = torch.tensor([0, 1, 2, 3, 1, 0])
SOFT = torch.randn(B, K, generator=torch.Generator().manual_seed(1))
PARTNER = torch.tensor([3, 0, 1, 5, 4, 2])
MIXED = {"partner_hard": HARD[PARTNER], "weight": torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 0.9])}
TARGETS = {
    "hard": Targets(hard=HARD),
    "soft logits": Targets(hard=HARD, soft=SOFT),
    "soft probabilities": Targets(hard=HARD, soft=SOFT.softmax(dim=1), soft_kind="probabilities"),
    "mixed hard": Targets(hard=HARD, **MIXED),
    "mixed soft": Targets(hard=HARD, soft=SOFT, partner_soft=SOFT[PARTNER], **MIXED),
}


def is_refused(loss, targets):
    """Say whether a loss has, by its own word, no meaning with some targets."""
    if targets.soft is None:
        return getattr(loss, "needs_soft", False)
    return targets.soft_kind == "probabilities" and getattr(loss, "needs_logits", False)


def permuted(targets, order):
    tensors = {f.name: getattr(targets, f.name) for f in attrs.fields(Targets)}
    return Targets(**{k: v[order] if isinstance(v, torch.Tensor) else v for k, v in tensors.items()})


@of_kind("loss")
@pytest.mark.parametrize("kind", TARGETS)
def test_a_loss_trains_towards_its_targets_or_says_why_not(name, kind):
    loss, targets, logits = made("loss", name), TARGETS[kind], LOGITS.clone().requires_grad_()
    if is_refused(loss, targets):
        with pytest.raises(ValueError, match="label") as refused:
            loss(logits, targets)
        assert_one_line(refused.value)
        return
    with global_draws_untouched():
        value = loss(logits, targets)
    value.backward()
    assert (value.shape, value.dtype) == ((), LOGITS.dtype)
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.any()
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    torch.testing.assert_close(loss(LOGITS[order], permuted(targets, order)), value.detach())


# Label mappings.


def teachers(images):
    """Stand for two teachers, whose logits depend on the images."""
    total = images.sum(dim=(1, 2, 3)).view(-1, 1)
    return total * torch.arange(K), total - torch.arange(K) ** 2


def no_teachers(images):
    return ()


def view_of(soft_kind="logits", mixed=False, soft=SOFT):
    labels = soft if soft is None or soft_kind == "logits" else soft.softmax(dim=1)
    mixing = Mixing(partner=PARTNER, weight=MIXED["weight"]) if mixed else None
    images = torch.rand(B, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return View(images=images, hard=HARD, soft=labels, soft_kind=soft_kind, mixing=mixing, num_classes=K)


views = pytest.mark.parametrize(
    "view",
    [view_of(kind, mixed) for mixed in (False, True) for kind in ("logits", "probabilities")],
    ids=lambda view: f"{'unmixed' if view.mixing is None else 'mixed'} {view.soft_kind}",
)


@of_kind("label-mapping")
@views
def test_a_label_mapping_gives_the_targets_that_it_says_it_gives(name, view):
    mapping = made("label-mapping", name)
    before = view.images.clone(), view.hard.clone(), view.soft.clone()
    with global_draws_untouched():
        targets = mapping(view, teachers if getattr(mapping, "needs_teacher", False) else no_teachers)
    assert all(torch.equal(*pair) for pair in zip(before, (view.images, view.hard, view.soft), strict=True))
    assert torch.equal(HARD, targets.hard)
    if view.mixing is None:
        assert (None, None, None) == (targets.partner_hard, targets.partner_soft, targets.weight)
    else:
        assert torch.equal(HARD[PARTNER], targets.partner_hard)
        assert torch.equal(MIXED["weight"], targets.weight)
    assert (targets.soft is not None) == getattr(mapping, "gives_soft", False)
    if targets.soft is not None:
        assert (B, K) == targets.soft.shape
        torch.testing.assert_close(targets.soft_probabilities().sum(dim=1), torch.ones(B))


@of_kind("label-mapping")
def test_a_label_mapping_says_in_one_line_what_it_misses(name):
    mapping = made("label-mapping", name)
    flags = ("needs_stored_soft", "needs_teacher", "replays_views")
    if not any(getattr(mapping, flag, False) for flag in flags):
        assert torch.equal(HARD, mapping(view_of(soft=None), no_teachers).hard)
        return
    with pytest.raises(DDRankError) as refused:
        mapping(view_of(soft=None), no_teachers)
    assert_one_line(refused.value)


@of_kind("label-mapping")
@pytest.mark.parametrize("loss", NAMES["loss"])
@views
def test_every_loss_takes_the_targets_of_every_label_mapping_or_has_said_that_it_does_not(name, loss, view):
    loss = made("loss", loss)
    targets = made("label-mapping", name)(view, teachers)
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
    with torch.no_grad(), global_draws_untouched():
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


@pytest.mark.parametrize("name", [name for name in NAMES["dataset"] if name != "digits"])
def test_a_data_set_that_is_not_there_is_one_line_that_names_where_it_should_be(name, tmp_path):
    data, path = data_at(name, tmp_path / "missing")
    with pytest.raises(DataError) as refused:
        data.load()
    assert_one_line(refused.value)
    assert str(path) in str(refused.value)
    assert list(tmp_path.iterdir()) == []


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


def real_data(test_seed=0):
    draws = torch.Generator().manual_seed(0)
    return RealData(
        train_images=torch.rand(24, 1, 8, 8, generator=draws),
        train_labels=torch.arange(24) % 3,
        test_images=torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(test_seed)),
        test_labels=torch.arange(6) % 3,
        class_names=("a", "b", "c"),
        mean=(0.5,),
        std=(0.3,),
        source="random images",
    )


@of_kind("method")
def test_a_method_gives_as_many_images_as_are_asked_by_its_seed_without_the_test_images(name):
    method, network = made("method", name), made("architecture", "convnet", depth=1, width=4)
    steps = []

    def distil(data, seed=1):
        return method.distill(data, network, 2, "cpu", seed, lambda *step: steps.append(step))

    data = real_data()
    before = data.train_images.clone()
    with global_draws_untouched():
        found = distil(data)
    assert torch.equal(before, data.train_images)
    assert (found.images.shape, found.images.dtype) == ((6, 1, 8, 8), torch.float32)
    assert found.images.isfinite().all()
    assert (found.labels.bincount().tolist(), found.ipc, found.num_classes) == ([2, 2, 2], 2, 3)
    assert (found.space.kind, found.space.mean) == ("normalised", data.mean)
    assert json.loads(json.dumps(dict(found.info)))["method"] == name
    total = steps[0][1]
    assert steps == [(step, total) for step in range(1, total + 1)]
    assert torch.equal(found.images, distil(real_data(test_seed=1)).images)
    assert not torch.equal(found.images, distil(data, seed=2).images)
