"""Trials trained at once come out as each does alone: in float64, to 1e-9 after 20 steps and more."""

from __future__ import annotations

import copy
from pathlib import Path

import attrs
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ddrank_core.data.stored_views import Views
from ddrank_core.engine.cohort import train_cohort
from ddrank_core.engine.cohort_probe import probe
from ddrank_core.engine.images import ImageSet, normaliser
from ddrank_core.engine.optimizers import SGD, Adam, AdamW
from ddrank_core.engine.plan import Training
from ddrank_core.engine.stacked_optimizers import stacked_optimizer
from ddrank_core.engine.train import Setting, build, train
from ddrank_core.registry import default_registry
from ddrank_core.structure import Structurer
from ddrank_core.types import Augmented, Mixing

CPU = torch.device("cpu")
CLASSES, COUNT, SHAPE = 3, 10, (3, 8, 8)
STRUCTURER = Structurer(default_registry(), Path())

SMALL_CONVNET = {"use": "convnet", "depth": 2, "width": 8}
RECIPE = {
    "labels": "hard",
    "loss": "ce",
    "augmentation": {"use": "dsa"},
    "optimizer": "sgd",
    "schedule": "constant",
}
SEEDS, RATES = (5, 5, 8), (0.01, 0.05, 0.02)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def chosen(kind, value):
    return STRUCTURER.chosen(kind, value)


def training_of(epochs=7, batch_size=4, **changes):
    """Return a training; 10 images make three steps an epoch, the last one on two images."""
    recipe = {"micro_batch": None, **RECIPE, **changes}
    augmentation = recipe["augmentation"]
    return Training(
        source="distilled",
        labels=chosen("label-mapping", recipe["labels"]),
        loss=chosen("loss", recipe["loss"]),
        augmentation=(chosen("augmentation", augmentation),) if augmentation else (),
        optimizer=chosen("optimizer", recipe["optimizer"]),
        schedule=chosen("schedule", recipe["schedule"]),
        epochs=epochs,
        batch_size=batch_size,
        micro_batch=recipe["micro_batch"],
    )


def images_of(seed=0, soft=True, shape=SHAPE, count=COUNT):
    draws = torch.Generator().manual_seed(seed)
    return ImageSet(
        images=torch.randn(count, *shape, generator=draws, dtype=torch.float64),
        labels=torch.randint(CLASSES, (count,), generator=draws),
        soft=torch.randn(count, CLASSES, generator=draws, dtype=torch.float64) if soft else None,
        num_classes=CLASSES,
    )


def why_not(*case):
    return probe(*case).reason


def setting_of(teachers=lambda images: ()):
    space = normaliser((0.5,) * 3, (0.25,) * 3, CPU)
    return Setting(device=CPU, precision="fp32", space=space, teachers=teachers)


def teacher_of():
    network = build(chosen("architecture", SMALL_CONVNET).component, CLASSES, SHAPE, 99).double().eval()
    network.requires_grad_(False)
    return lambda images: (network(images.double()), 2 * network(images.double()))


def networks_of(architecture, seeds=SEEDS, shape=SHAPE):
    component = chosen("architecture", architecture).component
    return [build(component, CLASSES, shape, seed).double() for seed in seeds]


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def alone(networks, data, training, setting, rates=RATES, seeds=SEEDS):
    """Return what each network becomes when `train` trains it alone."""
    finite = [
        train(network, images, training, rate, seed, setting, lambda epoch: None)
        for network, images, rate, seed in zip(networks, data, rates, seeds, strict=True)
    ]
    return [state(network) for network in networks], finite


def together(networks, data, training, setting, rates=RATES, seeds=SEEDS, folded=False, after=None):
    finite = train_cohort(
        networks, data, training, rates, seeds, setting, after or (lambda epoch: None), folded=folded
    )
    return [state(network) for network in networks], finite


def assert_close(expected, actual, tolerance=1e-9):
    for one, other in zip(expected, actual, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            difference = (one[name].double() - other[name].double()).abs().max().item()
            assert difference <= tolerance, f"{name}: {difference}"


def assert_same_alone_and_together(
    architecture, training, folded, data=None, setting=None, shape=SHAPE, rates=RATES, seeds=SEEDS
):
    """Train alone and in a cohort, `folded` too where it should be possible, and compare."""
    data = data or [images_of(shape=shape)] * len(seeds)
    setting = setting or setting_of()
    networks = networks_of(architecture, seeds, shape)
    before = [state(network) for network in networks]
    expected, finite = alone(copy.deepcopy(networks), data, training, setting, rates, seeds)
    assert [True] * len(seeds) == finite
    for way in (False, True) if folded else (False,):
        found, finite = together(copy.deepcopy(networks), data, training, setting, rates, seeds, way)
        assert [True] * len(seeds) == finite
        assert_close(expected, found)
    with pytest.raises(AssertionError):
        assert_close(before, expected, 1e-4)


# -- networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "folded"),
    [
        *(
            ({**SMALL_CONVNET, "norm": norm}, True)
            for norm in ("instance", "batch", "layer", "group", "none")
        ),
        ({**SMALL_CONVNET, "pooling": "max", "activation": "sigmoid"}, True),
        ({"use": "mlp", "width": 16}, True),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_a_network_trained_in_a_cohort_is_the_one_trained_alone(architecture, folded):
    assert_same_alone_and_together(architecture, training_of(), folded)


@pytest.mark.parametrize(
    ("architecture", "folded", "side", "rates"),
    [
        ({"use": "resnet", "depth": 10, "width": 4, "norm": "batch"}, True, 16, RATES),
        ({"use": "resnet", "depth": 10, "width": 4, "norm": "instance"}, True, 32, (1e-3, 2e-3, 5e-3)),
        ({"use": "timm/test_efficientnet"}, False, 32, (1e-4, 2e-4, 5e-4)),
        ({"use": "torchvision/shufflenet_v2_x0_5", "stem": "small"}, False, 32, (1e-4, 2e-4, 5e-4)),
    ],
    ids=lambda value: value["use"] if isinstance(value, dict) else None,
)
def test_deep_networks_come_out_the_same_with_their_buffers(architecture, folded, side, rates):
    """Some at small rates: at large ones, rounding alone moves them as far in as many steps."""
    training = training_of(batch_size=5, epochs=10)
    assert_same_alone_and_together(architecture, training, folded, shape=(3, side, side), rates=rates)


def test_a_vgg_comes_out_the_same():
    """Of two trials and two steps, since it has 9 million weights."""
    images = images_of(shape=(3, 32, 32), count=6)
    training = training_of(epochs=1)
    vgg = {"use": "vgg", "depth": 11, "norm": "batch"}
    assert_same_alone_and_together(
        vgg, training, True, [images] * 2, shape=(3, 32, 32), rates=(0.01, 0.02), seeds=(1, 2)
    )


# -- recipes -----------------------------------------------------------------------------------

TEACHER = {"labels": "teacher", "loss": {"use": "kl", "temperature": 4.0}}
RECIPES = {
    "mixup": {"augmentation": "mixup"},
    "cutmix": {"augmentation": "cutmix"},
    "crops": {"augmentation": "random-resized-crop"},
    "no augmentation": {"augmentation": None},
    "smooth": {"labels": "smooth"},
    "soft ce": {"labels": "soft"},
    "soft sce mixup": {"labels": "soft", "loss": "sce", "augmentation": "mixup"},
    "soft mse_gt": {"labels": "soft", "loss": {"use": "mse_gt", "ce_weight": 0.1}, "augmentation": "cutmix"},
    "soft mse": {"labels": "soft", "loss": "mse"},
    "teacher kl": TEACHER,
    "teacher kl cutmix": {**TEACHER, "augmentation": "cutmix"},
    "nesterov": {"optimizer": {"use": "sgd", "nesterov": True, "decay_on": "weights"}},
    "plain sgd": {"optimizer": {"use": "sgd", "momentum": 0.0}},
    # A bias before a norm has no gradient but rounding, which Adam divides by `eps`.
    "adam cosine": {"optimizer": {"use": "adam", "eps": 1e-6}, "schedule": "cosine"},
    "adamw multi-step": {
        "optimizer": {"use": "adamw", "eps": 1e-6, "weight_decay": 0.1, "decay_on": "weights"},
        "schedule": {"use": "multi-step", "milestones": [2, 4]},
    },
    "micro batch": {"micro_batch": 3, "augmentation": "mixup"},
    "micro batch soft": {"micro_batch": 3, "labels": "soft", "loss": "sce"},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_in_a_cohort_does_what_it_does_alone(recipe):
    assert_same_alone_and_together(
        SMALL_CONVNET, training_of(**recipe), True, setting=setting_of(teacher_of())
    )


def test_every_trial_trains_on_its_own_images_and_labels():
    data = [images_of(seed) for seed in range(3)]
    assert_same_alone_and_together(SMALL_CONVNET, training_of(labels="soft"), True, data, seeds=(5, 5, 5))


class StoredViews:
    """Views that were stored of the ten images: two a batch are mixed, and their order is their own."""

    soft_kind, soft_temperature = "logits", 1.0

    def epoch(self, epoch, with_labels=True):
        draws = torch.Generator().manual_seed(epoch % 3)
        order = torch.randperm(COUNT, generator=draws)
        partner = torch.tensor([1, 0, 2, 3, 5, 4, 6, 7, 9, 8])
        return Views(
            image=order,
            box=torch.tensor([0.0, 0.0, 0.5, 1.0]).repeat(COUNT, 1),
            flip=order % 2 == 0,
            partner=partner,
            weight=torch.linspace(0.1, 0.9, COUNT),
            soft=torch.randn(COUNT, CLASSES, generator=draws, dtype=torch.float64) if with_labels else None,
        )


@pytest.mark.parametrize("labelled", [True, False])
def test_stored_views_are_replayed_in_a_cohort(labelled):
    images = attrs.evolve(images_of(), soft=None, views=StoredViews(), views_are_labelled=labelled)
    training = training_of(labels="stored-views", loss="kl", augmentation=None)
    setting = setting_of(teacher_of())
    assert_same_alone_and_together(SMALL_CONVNET, training, True, [images] * 3, setting)
    assert None is why_not(networks_of(SMALL_CONVNET)[0], training, images, setting)


class MixSome:
    """Mixes a batch or does not, as the host's generator says."""

    mixes = True

    def __call__(self, images, randomness):
        if torch.rand((), generator=randomness.host) < 0.5:
            return Augmented(images)
        partner = torch.randperm(len(images), generator=randomness.device)
        return Augmented((images + images[partner]) / 2, Mixing(partner, torch.full((len(images),), 0.5)))


def test_a_batch_may_be_mixed_in_one_trial_and_not_in_another():
    training = training_of()
    some = attrs.evolve(training.augmentation[0], component=MixSome())
    assert_same_alone_and_together(SMALL_CONVNET, attrs.evolve(training, augmentation=(some,)), False)


def test_trials_of_one_seed_share_their_views_and_teachers_are_asked_once_a_step():
    asked = []
    teachers = teacher_of()

    def counting(images):
        asked.append(len(images))
        return teachers(images)

    together(
        networks_of(SMALL_CONVNET), [images_of()] * 3, training_of(epochs=1, **TEACHER), setting_of(counting)
    )
    assert [8, 8, 4] == asked


# -- trials do not touch each other ------------------------------------------------------------


def test_the_order_of_trials_does_not_matter():
    networks, training, data = (
        networks_of(SMALL_CONVNET),
        training_of(),
        [images_of(seed) for seed in range(3)],
    )
    expected, _ = together(copy.deepcopy(networks), data, training, setting_of())
    found, _ = together(networks[::-1], data[::-1], training, setting_of(), RATES[::-1], SEEDS[::-1])
    assert_close(expected, found[::-1])


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("norm", ["instance", "batch", "layer"])
def test_a_trial_that_diverges_leaves_the_others_as_they_are(folded, norm):
    networks, training = networks_of({**SMALL_CONVNET, "norm": norm}), training_of()
    tame, _ = together(copy.deepcopy(networks), [images_of()] * 3, training, setting_of(), folded=folded)
    rates = (RATES[0], 1e200, RATES[2])
    found, finite = together(networks, [images_of()] * 3, training, setting_of(), rates, folded=folded)
    assert [True, False, True] == finite
    assert not found[1]["classifier.weight"].isfinite().all()
    assert_close([tame[0], tame[2]], [found[0], found[2]], 1e-12)


def test_a_cohort_of_which_all_diverge_ends_at_the_check_of_train():
    epochs_alone, epochs_together = [], []
    training, images = training_of(epochs=60, augmentation=None), images_of()
    networks = networks_of(SMALL_CONVNET, (1, 2))
    assert not train(
        copy.deepcopy(networks[0]), images, training, 1e200, 1, setting_of(), epochs_alone.append
    )
    _, finite = together(
        networks, [images] * 2, training, setting_of(), (1e200, 1e200), (1, 2), after=epochs_together.append
    )
    assert [False, False] == finite
    assert epochs_alone == epochs_together


def test_after_an_epoch_each_network_is_what_it_has_become():
    networks, training = networks_of(SMALL_CONVNET), training_of(epochs=3)
    seen = []
    together(
        copy.deepcopy(networks),
        [images_of()] * 3,
        training,
        setting_of(),
        after=lambda epoch: None,
    )
    live = copy.deepcopy(networks)
    together(live, [images_of()] * 3, training, setting_of(), after=lambda _: seen.append(state(live[1])))
    for epoch, found in enumerate(seen, start=1):
        alone_until = copy.deepcopy(networks[1])
        train(
            alone_until,
            images_of(),
            training_of(epochs=epoch),
            RATES[1],
            SEEDS[1],
            setting_of(),
            lambda e: None,
        )
        assert_close([state(alone_until)], [found])


def test_networks_share_no_memory_after_their_training():
    networks = networks_of(SMALL_CONVNET)
    together(networks, [images_of()] * 3, training_of(epochs=1), setting_of())
    sizes = {
        weight.untyped_storage().nbytes() == weight.nbytes for n in networks for weight in n.parameters()
    }
    assert {True} == sizes


def test_trials_of_unequal_sets_are_no_cohort():
    data = [images_of(), images_of(count=9), images_of()]
    with pytest.raises(ValueError, match="must train on equally many images of one kind"):
        together(networks_of(SMALL_CONVNET), data, training_of(), setting_of())


def test_a_cohort_runs_in_bf16_with_weights_of_float32():
    networks = [network.to(torch.float32) for network in networks_of(SMALL_CONVNET)]
    images = images_of(soft=False)
    images = attrs.evolve(images, images=images.images.to(torch.float32))
    training = training_of(epochs=1)
    setting = attrs.evolve(setting_of(), precision="bf16")
    whole, _ = alone(copy.deepcopy(networks), [images] * 3, training, setting_of())
    expected, _ = alone(copy.deepcopy(networks), [images] * 3, training, setting)
    for folded in (False, True):
        found, finite = together(copy.deepcopy(networks), [images] * 3, training, setting, folded=folded)
        assert [True] * 3 == finite
        # bf16 keeps 8 bits, and sums may come in another order.
        assert_close(expected, found, 1e-2)
        with pytest.raises(AssertionError):
            assert_close(whole, found, 1e-4)


# -- optimisers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "about",
    [
        SGD(weight_decay=0.01),
        SGD(momentum=0.0, weight_decay=0.0),
        SGD(nesterov=True, decay_on="weights"),
        Adam(),
        Adam(weight_decay=0.0, betas=(0.5, 0.9), eps=1e-3),
        AdamW(weight_decay=0.1),
        AdamW(weight_decay=0.1, decay_on="weights"),
    ],
    ids=str,
)
def test_a_stacked_optimizer_steps_like_torchs(about):
    rates = (0.1, 0.01, 0.3)
    matrices, vectors = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    idle = torch.randn(3, 2, 2, dtype=torch.float64)
    stacked = [tensor.clone().requires_grad_() for tensor in (matrices, vectors, idle)]
    ours = stacked_optimizer(about, stacked)
    single = [[tensor[t].clone().requires_grad_() for tensor in (matrices, vectors, idle)] for t in range(3)]
    theirs = [about.build(weights, rate) for weights, rate in zip(single, rates, strict=True)]
    for step in range(20):
        factor = 1 / (1 + step // 5)
        ours.set_rates(torch.tensor(rates, dtype=torch.float64) * factor)
        gradients = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
        for weight, gradient in zip(stacked, gradients, strict=False):
            weight.grad = gradient.clone()
        ours.step()
        for trial, optimizer in enumerate(theirs):
            for group in optimizer.param_groups:
                group["lr"] = rates[trial] * factor
            for weight, gradient in zip(single[trial], gradients, strict=False):
                weight.grad = gradient[trial].clone()
            optimizer.step()
    for place, weight in enumerate(stacked):
        expected = torch.stack([weights[place] for weights in single])
        assert torch.allclose(expected, weight, rtol=0, atol=1e-12)
    assert torch.equal(idle, stacked[2])


def test_an_optimizer_of_another_kind_has_no_stacked_form():
    with pytest.raises(ValueError, match="Lion has no form for many trainings at once"):
        stacked_optimizer(type("Lion", (), {})(), [])


# -- what can be trained so --------------------------------------------------------------------


class Body(nn.Module):
    """A linear classifier of the mean colour, and something in its forward pass."""

    def __init__(self, act, buffer=None):
        super().__init__()
        self.classifier = nn.Linear(3, CLASSES)
        self.act = act
        self.steps = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        return self.classifier(self.act(self, images.mean(dim=(2, 3))))


def scaled_by_item(network, features):
    return features * features.abs().max().item()


def branch(network, features):
    return features if features.sum() > 0 else -features


def noisy(network, features):
    return features + torch.randn_like(features)


def counted_in_a_new_tensor(network, features):
    network.seen = network.seen + features.detach().mean()
    return features


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (scaled_by_item, "torch cannot batch it: It looks like you're calling .item"),
        (branch, "torch cannot batch it: It looks like you're attempting to use a Tensor in some data-dep"),
        (noisy, "its forward pass draws random numbers"),
        (lambda _, features: F.dropout(features), "its forward pass draws random numbers"),
        (counted_in_a_new_tensor, "its weights or buffers come out differently than alone"),
    ],
    ids=["item", "branch", "noise", "dropout", "new tensor"],
)
def test_what_cannot_be_trained_at_once_is_found_out(act, reason):
    network = Body(act)
    weights = state(network)
    state_of_generator = torch.get_rng_state()
    assert reason in why_not(network, training_of(), images_of(), setting_of())
    assert_close([weights], [state(network)], 0)
    assert torch.equal(state_of_generator, torch.get_rng_state())


def test_a_network_with_dropout_is_refused_by_its_training_too():
    with pytest.raises(RuntimeError, match="random"):
        together([Body(noisy).double() for _ in range(3)], [images_of()] * 3, training_of(), setting_of())


def test_an_augmentation_that_draws_from_the_global_generator_is_found_out():
    class Global:
        def __call__(self, images, randomness):
            return Augmented(images + torch.randn(len(images), 1, 1, 1))

    training = training_of()
    training = attrs.evolve(
        training, augmentation=(attrs.evolve(training.augmentation[0], component=Global()),)
    )
    assert "differently than alone" in why_not(
        networks_of(SMALL_CONVNET)[0], training, images_of(), setting_of()
    )


def test_a_loss_and_a_label_mapping_that_look_at_the_batch_as_a_whole_are_found_out():
    class Worst:
        def __call__(self, logits, targets):
            losses = F.cross_entropy(logits, targets.hard, reduction="none")
            return losses[losses > losses.mean()].mean()

    class Centred:
        def __call__(self, view, teachers):
            soft = view.soft - view.soft.mean()
            return chosen("label-mapping", "soft").component(attrs.evolve(view, soft=soft), teachers)

    training = training_of(labels="soft", loss="mse")
    loss = attrs.evolve(training, loss=attrs.evolve(training.loss, component=Worst()))
    labels = attrs.evolve(training, labels=attrs.evolve(training.labels, component=Centred()))
    network, images = networks_of(SMALL_CONVNET)[0], images_of()
    assert why_not(network, loss, images, setting_of()).startswith("torch cannot batch it: ")
    assert "differently than alone" in why_not(network, labels, images, setting_of())


@pytest.mark.parametrize(
    ("architecture", "folded", "side"),
    [
        (SMALL_CONVNET, True, 8),
        ({"use": "lenet"}, True, 28),
        ({"use": "resnet", "depth": 10, "width": 2, "norm": "batch"}, True, 16),
        ({"use": "timm/test_convnext"}, False, 32),
        ({"use": "torchvision/shufflenet_v2_x0_5"}, False, 32),
    ],
    ids=lambda value: value["use"] if isinstance(value, dict) else None,
)
def test_how_a_network_is_trained_at_once_is_found_out(architecture, folded, side):
    shape = (3, side, side)
    network = build(chosen("architecture", architecture).component, CLASSES, shape, 0)
    images = images_of(shape=shape, soft=False)
    images = attrs.evolve(images, images=images.images.to(torch.float32))
    found = probe(network, training_of(), images, setting_of())
    assert (None, folded, ()) == (found.reason, found.folded, found.slow)


def test_operations_that_torch_computes_trial_by_trial_are_named():
    """torch's own kl_div is one of them."""

    class TorchsKL:
        def __call__(self, logits, targets):
            return F.kl_div(logits.log_softmax(1), targets.soft_probabilities(), reduction="batchmean")

    training = training_of(labels="soft", loss="kl")
    training = attrs.evolve(training, loss=attrs.evolve(training.loss, component=TorchsKL()))
    found = probe(networks_of(SMALL_CONVNET)[0], training, images_of(), setting_of())
    assert (None, True, ("aten::kl_div",)) == (found.reason, found.folded, found.slow)


def test_an_optimizer_without_a_stacked_form_is_found_out():
    class Other:
        def build(self, parameters, learning_rate):
            return torch.optim.RMSprop(parameters, learning_rate)

    training = training_of()
    training = attrs.evolve(training, optimizer=attrs.evolve(training.optimizer, component=Other()))
    reason = why_not(networks_of(SMALL_CONVNET)[0], training, images_of(), setting_of())
    assert "the optimizer Other has no form for many trainings at once" == reason
