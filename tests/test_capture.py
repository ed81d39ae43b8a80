"""Steps that are recorded and replayed come out as they do without: to the last bit.

On a CPU a tape stands in for a CUDA graph: it runs the very same operations on the very same memory again,
and no Python, so that whatever a recording freezes or misses is seen here too. What only a GPU shows is in
the last section.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import ClassVar

import attrs
import pytest
import torch
from test_cohort import (
    CLASSES,
    RATES,
    RECIPES,
    SEEDS,
    SMALL_CONVNET,
    MixSome,
    StoredViews,
    assert_close,
    chosen,
    images_of,
    networks_of,
    setting_of,
    state,
    teacher_of,
    training_of,
)
from tiny_case import prepared_case
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from ddrank_core.engine.capture import Capture, CudaGraphs, NotRecorded, Replays
from ddrank_core.engine.cohort import STEPS_AT_ONCE, train_cohort
from ddrank_core.engine.cohort_probe import Probe, try_capture
from ddrank_core.engine.cohorts import Cohorts
from ddrank_core.engine.device import deterministic
from ddrank_core.engine.images import normaliser
from ddrank_core.engine.teachers import asker, freeze
from ddrank_core.engine.train import Setting, build, train
from ddrank_core.engine.trial import Trainer
from ddrank_core.types import Augmented

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

DSA_OF_ALL = {"use": "dsa", "mode": "multiple"}
"""Draws from the device's generator alone."""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# -- a recorder for a CPU ----------------------------------------------------------------------

_SYNCHRONISING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero"}


class Tape(TorchDispatchMode):
    """Does operations, and notes them down."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        name = function._schema.name
        if name in _SYNCHRONISING:
            raise RuntimeError(f"{name} is not permitted when stream is capturing")
        result = function(*arguments, **keywords)
        # Views and what is done in place are in memory that the tape writes anyway.
        aliases = any(returned.alias_info is not None for returned in function._schema.returns)
        self.operations.append((function, arguments, keywords, result, aliases))
        return result

    def play(self):
        with torch.no_grad():
            for function, arguments, keywords, result, aliases in self.operations:
                again = function(*arguments, **keywords)
                if aliases:
                    continue
                for old, new in zip(tree_flatten(result)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(old, torch.Tensor):
                        old.copy_(new)


class Tapes:
    """Records tapes. A first replay is done already, by the recording."""

    made: ClassVar[list[Tapes]] = []

    def __init__(self):
        self.warmed_up, self.recorded, self.replays, self.closed = 0, 0, 0, False
        Tapes.made.append(self)

    def warm_up(self, work):
        self.warmed_up += 1
        work()

    def record(self, work, generators):
        states = [generator.get_state() for generator in generators]
        tape = Tape()
        try:
            with tape:
                work()
        except RuntimeError as error:
            for generator, before in zip(generators, states, strict=True):
                generator.set_state(before)
            raise NotRecorded(str(error)) from error
        self.recorded += 1
        done = [True]

        def replay():
            self.replays += 1
            if done:
                done.clear()
            else:
                tape.play()

        return replay

    def close(self):
        self.closed = True


@pytest.fixture
def tapes():
    Tapes.made = []
    return Tapes.made


def trained(training, capture=None, data=None, setting=None, folded=True, networks=None, after=None):
    networks = copy.deepcopy(networks or networks_of(SMALL_CONVNET))
    finite = train_cohort(
        networks,
        data or [images_of()] * len(networks),
        training,
        RATES,
        SEEDS,
        setting or setting_of(),
        after or (lambda epoch: None),
        folded,
        capture,
    )
    return [state(network) for network in networks], finite


def assert_same_bits(expected, found):
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name


def assert_same_captured(training, views, **changes):
    """Train with and without a recorder, and compare; `views` says whether these are recorded too."""
    before = [state(network) for network in changes.get("networks") or networks_of(SMALL_CONVNET)]
    expected = trained(training, **changes)
    capture = Capture(Tapes)
    found = trained(training, capture, **changes)
    assert (views, None) == (capture.views, capture.failed)
    assert_same_bits(expected[0], found[0])
    assert expected[1] == found[1]
    assert not torch.equal(before[0]["classifier.weight"], found[0][0]["classifier.weight"])


# -- the same numbers --------------------------------------------------------------------------

DRAWS_OF_THE_HOST = {name for name, recipe in RECIPES.items() if "augmentation" not in recipe}
"""The default augmentation is DSA, which draws its strategy on the host."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_comes_out_the_same_replayed(recipe, tapes):
    training = training_of(**RECIPES[recipe])
    assert_same_captured(training, recipe not in DRAWS_OF_THE_HOST, setting=setting_of(teacher_of()))
    (made,) = tapes
    assert made.closed
    counts = (made.warmed_up, made.recorded, made.replays)
    if recipe in DRAWS_OF_THE_HOST:
        # Of seven epochs the first goes as it is, and the second too, now step by step.
        assert (1 + 3, 2, 5 * 3) == counts
    else:
        assert (1, 1, 6) == counts


@pytest.mark.parametrize("norm", ["batch", "instance", "layer"])
@pytest.mark.parametrize("folded", [False, True])
def test_networks_come_out_the_same_with_their_buffers(norm, folded):
    networks = networks_of({**SMALL_CONVNET, "norm": norm})
    training = training_of(augmentation=DSA_OF_ALL, schedule="cosine")
    assert_same_captured(training, True, networks=networks, folded=folded)


def test_every_trial_is_replayed_on_its_own_images():
    data = [images_of(seed) for seed in range(3)]
    assert_same_captured(training_of(labels="soft", augmentation=None), True, data=data)
    assert_same_captured(training_of(labels="soft"), False, data=data)


def test_teachers_are_asked_about_every_view_inside_of_a_recording():
    training = training_of(labels="teacher", loss="kl", augmentation=DSA_OF_ALL)
    assert_same_captured(training, True, setting=setting_of(teacher_of()))


def test_mixed_and_unmixed_batches_are_recorded_apart(tapes):
    training = training_of()
    some = attrs.evolve(training.augmentation[0], component=MixSome())
    assert_same_captured(attrs.evolve(training, augmentation=(some,), epochs=20), False)
    assert tapes[0].recorded == 4


def test_images_that_are_normalised_as_they_are_handed_out_are_gathered_in_a_recording():
    draws = torch.Generator().manual_seed(0)
    images = attrs.evolve(
        images_of(),
        images=torch.randint(256, (20, 3, 8, 8), generator=draws, dtype=torch.uint8),
        space=normaliser((0.5,) * 3, (0.25,) * 3, torch.device("cpu")),
        rows=torch.arange(0, 20, 2),
        soft=None,
    )
    networks = [network.float() for network in networks_of(SMALL_CONVNET)]
    training = training_of(augmentation="random-crop")
    assert_same_captured(training, True, data=[images] * 3, networks=networks)


def test_an_epoch_of_many_steps_is_recorded_in_parts(tapes):
    images = images_of(count=2 * STEPS_AT_ONCE * 2 + 3)
    training = training_of(batch_size=2, epochs=3, augmentation=DSA_OF_ALL)
    assert_same_captured(training, True, data=[images] * 3)
    # Two whole parts and a rest of two steps.
    assert (3, 2, 2 * 3) == (tapes[0].warmed_up, tapes[0].recorded, tapes[0].replays)


def test_after_an_epoch_networks_are_what_the_replay_made_of_them():
    networks, seen = networks_of(SMALL_CONVNET), {False: [], True: []}
    for captured, found in seen.items():
        own = copy.deepcopy(networks)
        train_cohort(
            own,
            [images_of()] * 3,
            training_of(augmentation=None),
            RATES,
            SEEDS,
            setting_of(),
            lambda _, own=own, found=found: found.append(state(own[1])),
            capture=Capture(Tapes) if captured else None,
        )
    assert len(seen[True]) == 7
    assert_same_bits(seen[False], seen[True])


def test_a_trial_that_diverges_is_noticed_in_a_replay():
    networks = networks_of(SMALL_CONVNET)
    for augmentation in (None, {"use": "dsa"}):
        training = training_of(augmentation=augmentation, epochs=30)
        rates = (RATES[0], 1e200, RATES[2])
        finite = train_cohort(
            copy.deepcopy(networks),
            [images_of()] * 3,
            training,
            rates,
            SEEDS,
            setting_of(),
            lambda epoch: None,
            capture=Capture(Tapes),
        )
        assert [True, False, True] == finite


def test_bf16_comes_out_the_same_replayed():
    networks = [network.float() for network in networks_of(SMALL_CONVNET)]
    images = images_of(soft=False)
    images = attrs.evolve(images, images=images.images.float())
    setting = attrs.evolve(setting_of(), precision="bf16")
    training = training_of(augmentation=None)
    assert_same_captured(training, True, data=[images] * 3, networks=networks, setting=setting)


# -- how far it is captured --------------------------------------------------------------------


def test_stored_views_are_not_captured(tapes):
    images = attrs.evolve(images_of(), soft=None, views=StoredViews())
    training = training_of(labels="stored-views", loss="kl", augmentation=None)
    expected = trained(training, data=[images] * 3)
    found = trained(training, Capture(Tapes), data=[images] * 3)
    assert_same_bits(expected[0], found[0])
    assert [] == tapes


class Branching:
    """Looks at the images, for which a host must wait."""

    def __call__(self, images, randomness):
        return Augmented(images if images.sum().item() > 0 else -images)


def waiting_teacher(images):
    return (images.flatten(1)[:, :CLASSES] * images.abs().max().item(),)


def with_augmentation(training, component):
    return attrs.evolve(training, augmentation=(attrs.evolve(training.augmentation[0], component=component),))


def test_views_that_wait_for_the_device_are_made_outside_of_the_recording(tapes):
    assert_same_captured(with_augmentation(training_of(), Branching()), False)
    assert tapes[0].recorded == 2


def test_teachers_that_wait_for_the_device_are_asked_outside_of_the_recording():
    training = training_of(labels="teacher", loss="kl", augmentation=None)
    assert_same_captured(training, False, setting=setting_of(waiting_teacher))


class Untouched(Tapes):
    """Breaks off in the middle of a step: after the backward pass, before the weights move."""

    def record(self, work, generators):
        states = [generator.get_state() for generator in generators]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ddrank_core.engine.stacked_optimizers.StackedOptimizer.step", self._stop)
            with pytest.raises(ZeroDivisionError):
                work()
        for generator, before in zip(generators, states, strict=True):
            generator.set_state(before)
        raise NotRecorded("RuntimeError: it broke off")

    def _stop(self, *_):
        raise ZeroDivisionError


@pytest.mark.parametrize("augmentation", [None, {"use": "dsa"}], ids=["with views", "without"])
def test_a_training_goes_on_uncaptured_where_a_recording_breaks_off(augmentation):
    training = training_of(augmentation=augmentation)
    expected = trained(training)
    capture = Capture(Untouched)
    found = trained(training, capture)
    assert_same_bits(expected[0], found[0])
    assert "RuntimeError: it broke off" == capture.failed


def test_what_has_failed_once_is_not_tried_again(tapes):
    capture = Capture(Untouched)
    trained(training_of(augmentation=None), capture)
    assert len(tapes) == 1
    trained(training_of(augmentation=None), capture)
    assert len(tapes) == 1


def test_a_want_of_memory_in_a_recording_is_raised_and_frees_the_recordings(tapes):
    class Small(Tapes):
        def record(self, work, generators):
            raise torch.OutOfMemoryError("CUDA out of memory")

    networks = networks_of(SMALL_CONVNET)
    with pytest.raises(torch.OutOfMemoryError):
        trained(training_of(), Capture(Small), networks=networks)
    assert tapes[0].closed


def test_shapes_without_end_are_not_all_recorded(tapes):
    recorder = Tapes()
    replays, seen = Replays(recorder, []), []
    for _ in range(3):
        for size in range(1, 20):
            replays(lambda tensors: seen.append(tensors["x"].sum()), {"x": torch.ones(size)})
        replays.turn()
    assert recorder.recorded == 8
    assert recorder.warmed_up == 3 * 19 - 2 * 8


# -- the check before it is relied on ----------------------------------------------------------


def tried(training, recorder, images=None, setting=None, precision=torch.float64):
    network = networks_of(SMALL_CONVNET)[0].to(precision)
    return try_capture(network, training, images or images_of(), setting or setting_of(), True, recorder)


@pytest.mark.parametrize("count", [3, 10])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_what_can_be_captured_is_found_out(count, micro_batch):
    found = tried(training_of(augmentation=None, micro_batch=micro_batch), Tapes, images_of(count=count))
    assert (True, None) == (found.views, found.failed)
    found = tried(training_of(micro_batch=micro_batch), Tapes, images_of(count=count))
    assert (False, None) == (found.views, found.failed)


def test_the_check_leaves_network_and_generators_as_they_are():
    network = networks_of(SMALL_CONVNET)[0]
    weights, generator = state(network), torch.get_rng_state()
    try_capture(network, training_of(), images_of(), setting_of(), True, Tapes)
    assert_same_bits([weights], [state(network)])
    assert torch.equal(generator, torch.get_rng_state())


class Counting:
    """Counts its calls, in Python, and starts anew with every training that is to be recorded."""

    def __init__(self):
        self.calls = 0

    def recorder(self):
        self.calls = 0
        return Tapes()


def test_a_number_that_recorded_views_would_freeze_is_found_out():
    class Rolling(Counting):
        def __call__(self, images, randomness):
            self.calls += 1
            return Augmented(images.roll(self.calls, 3))

    rolling = Rolling()
    found = tried(with_augmentation(training_of(), rolling), rolling.recorder)
    assert (False, None) == (found.views, found.failed)


def test_a_number_that_a_recorded_step_would_freeze_is_found_out():
    class Growing(Counting):
        def __call__(self, logits, targets):
            self.calls += 1
            return F.cross_entropy(logits, targets.hard) * self.calls

    growing, training = Growing(), training_of(augmentation=None)
    training = attrs.evolve(training, loss=attrs.evolve(training.loss, component=growing))
    found = tried(training, growing.recorder)
    assert found.failed.startswith("captured, its weights or buffers come out differently, by up to ")


def test_an_error_in_the_check_is_one_line():
    def broken():
        raise RuntimeError("no driver\nat all")

    assert "RuntimeError: no driver" == tried(training_of(), broken).failed


def test_what_is_not_captured_is_one_sentence_of_the_run():
    probes = {
        "syn-any": Probe(reason=None, capture=Capture(Tapes, failed="RuntimeError: it waits.")),
        "rdm-any": Probe(reason=None, capture=Capture(Tapes, failed="RuntimeError: it waits.")),
        "syn-hard": Probe(reason=None, capture=Capture(Tapes, views=False)),
        "full-hard": Probe(reason=None),
    }
    notes = Cohorts(trainer=None, asked=2, probes=probes).notes()
    assert (
        "The trials of syn-any, rdm-any were trained without CUDA graphs: RuntimeError: it waits.",
    ) == notes


def test_nothing_is_captured_on_a_cpu(tmp_path):
    trainer = Trainer(prepared_case(tmp_path, scores=["ior"]))
    cohorts = Cohorts(trainer, asked=2)
    arm = trainer.plan.trained[0]
    trials = trainer.plan.final_trials(arm, 0.01)
    assert cohorts.probe(arm, trials[0]).reason is None
    assert cohorts.probe(arm, trials[0]).capture is None
    assert () == cohorts.notes()


# -- on a GPU ----------------------------------------------------------------------------------

CUDA = torch.device("cuda:0")
GRAPHS = partial(CudaGraphs, CUDA)


@pytest.fixture
def repeatable(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with deterministic(CUDA):
        yield


def on_cuda(precision="fp32", dtype=torch.float32, norm="instance", teachers=lambda images: ()):
    """Return networks, images and the setting of a training on a GPU."""
    networks = [network.to(CUDA, dtype) for network in networks_of({**SMALL_CONVNET, "norm": norm})]
    images = images_of()
    images = attrs.evolve(
        images,
        images=images.images.to(CUDA, dtype),
        labels=images.labels.to(CUDA),
        soft=images.soft.to(CUDA, dtype),
    )
    space = normaliser((0.5,) * 3, (0.25,) * 3, CUDA)
    setting = Setting(device=CUDA, precision=precision, space=space, teachers=teachers)
    return networks, [images] * len(networks), setting


def cuda_teacher(dtype):
    network = build(chosen("architecture", SMALL_CONVNET).component, CLASSES, (3, 8, 8), 99)
    return asker([freeze(network.to(dtype), CUDA)])


@needs_cuda
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("recipe", ["no augmentation", "cutmix", "soft mse_gt", "adam cosine", "micro batch"])
def test_cuda_graphs_come_out_as_without(recipe, precision, folded, repeatable):
    networks, data, setting = on_cuda(precision, norm="batch")
    training = training_of(**RECIPES[recipe])
    expected, _ = trained(training, None, data, setting, folded, networks)
    capture = Capture(GRAPHS)
    found, finite = trained(training, capture, data, setting, folded, networks)
    assert capture.failed is None
    assert (recipe not in DRAWS_OF_THE_HOST) == capture.views
    assert [True] * 3 == finite
    assert_same_bits(expected, found)


@needs_cuda
@pytest.mark.parametrize("augmentation", [None, {"use": "dsa"}, DSA_OF_ALL, "mixup", "random-crop"])
def test_cuda_graphs_come_out_as_each_network_alone(augmentation, repeatable):
    teacher = cuda_teacher(torch.float64)
    networks, data, setting = on_cuda(
        dtype=torch.float64, norm="batch", teachers=lambda images: tuple(x.double() for x in teacher(images))
    )
    training = training_of(augmentation=augmentation, labels="teacher", loss="kl")
    alone = copy.deepcopy(networks)
    for network, images, rate, seed in zip(alone, data, RATES, SEEDS, strict=True):
        assert train(network, images, training, rate, seed, setting, lambda epoch: None)
    for folded in (False, True):
        capture = Capture(GRAPHS)
        found, _ = trained(training, capture, data, setting, folded, networks)
        assert capture.failed is None
        assert_close([state(network) for network in alone], found)


@needs_cuda
def test_streamed_images_are_copied_into_what_was_captured(repeatable):
    networks, data, setting = on_cuda()
    streamed = attrs.evolve(data[0], images=data[0].images.cpu())
    training = training_of(augmentation="random-crop")
    expected, _ = trained(training, None, data, setting, True, networks)
    capture = Capture(GRAPHS)
    found, _ = trained(training, capture, [streamed] * 3, setting, True, networks)
    assert capture.failed is None
    assert_same_bits(expected, found)


@needs_cuda
@pytest.mark.parametrize("augmentation", [None, {"use": "dsa"}, DSA_OF_ALL, "cutmix", "autoaugment"])
def test_the_check_finds_that_cuda_graphs_can_be_had(augmentation, repeatable):
    networks, data, setting = on_cuda()
    training = training_of(augmentation=augmentation)
    found = try_capture(networks[0], training, data[0], setting, True, GRAPHS)
    assert found.failed is None


@needs_cuda
@pytest.mark.parametrize("augmentation", [None, {"use": "dsa"}, "cutmix"], ids=str)
@pytest.mark.parametrize("captured", [False, True])
def test_no_epoch_waits_for_the_device(augmentation, captured, repeatable):
    """Epochs 5 to 8, when all is recorded; torch itself refuses to wait, and the profile shows no waiting."""
    networks, data, setting = on_cuda()
    training = training_of(augmentation=augmentation, epochs=9)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    profiler = torch.profiler.profile(activities=activities)

    def after(epoch):
        if epoch == 4:
            torch.cuda.synchronize()
            profiler.start()
            torch.cuda.set_sync_debug_mode("error")
        if epoch == 8:
            torch.cuda.set_sync_debug_mode("default")
            profiler.stop()

    try:
        trained(training, Capture(GRAPHS) if captured else None, data, setting, True, networks, after)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    names = {event.name for event in profiler.events()}
    assert not [name for name in names if "cudaStreamSynchronize" in name or "DtoH" in name]
    launched = {name for name in names if "cudaGraphLaunch" in name}
    assert captured == bool(launched)


@needs_cuda
def test_a_capture_that_breaks_off_leaves_torch_as_it_was():
    recorder, weight = CudaGraphs(CUDA), torch.ones(3, device=CUDA)
    own = torch.Generator(CUDA).manual_seed(1)
    torch.manual_seed(2)
    states = own.get_state(), torch.cuda.get_rng_state(CUDA)

    def waits():
        weight.add_(torch.rand(3, device=CUDA, generator=own) + torch.rand(3, device=CUDA))
        weight.sum().item()

    with pytest.raises(NotRecorded) as raised:
        recorder.record(waits, [own])
    assert len(str(raised.value).splitlines()) == 1
    assert torch.equal(states[0], own.get_state())
    assert torch.equal(states[1], torch.cuda.get_rng_state(CUDA))
    assert [1.0] * 3 == weight.tolist()
    torch.cuda.empty_cache()
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.rand(3, device=CUDA, generator=own)
    torch.rand(3, device=CUDA)
    replay = recorder.record(lambda: weight.add_(1), [own])
    replay()
    replay()
    assert [3.0] * 3 == weight.tolist()
    recorder.close()


@needs_cuda
def test_replays_draw_what_would_be_drawn_without():
    one, other = (torch.Generator(CUDA).manual_seed(1) for _ in range(2))
    found = torch.zeros(5, 7, device=CUDA)
    row = torch.zeros((), dtype=torch.int64, device=CUDA)

    def draw():
        permuted = torch.randperm(7, device=CUDA, generator=one)
        found.index_copy_(0, row.view(1), (torch.rand(7, device=CUDA, generator=one) + permuted).view(1, -1))
        row.add_(1)

    recorder = CudaGraphs(CUDA)
    recorder.warm_up(draw)
    replay = recorder.record(draw, [one])
    for _ in range(4):
        replay()
    for drawn in found:
        permuted = torch.randperm(7, device=CUDA, generator=other)
        assert torch.equal(torch.rand(7, device=CUDA, generator=other) + permuted, drawn)
    recorder.close()


@needs_cuda
def test_the_memory_of_graphs_is_given_back(repeatable):
    networks, data, setting = on_cuda()
    training = training_of(augmentation=None)
    reserved = []
    for _ in range(3):
        trained(training, Capture(GRAPHS), data, setting, True, networks)
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved(CUDA))
    assert reserved[1] == reserved[2]


@needs_cuda
def test_a_loss_that_waits_for_the_device_is_trained_with_uncaptured(repeatable):
    class Waits:
        """Waits outside of what vmap sees."""

        def __call__(self, logits, targets):
            torch.cuda.synchronize()
            return F.cross_entropy(logits, targets.hard)

    networks, data, setting = on_cuda()
    training = training_of(augmentation=None)
    waits = attrs.evolve(training, loss=attrs.evolve(training.loss, component=Waits()))
    expected, _ = trained(training, None, data, setting, True, networks)
    capture = Capture(GRAPHS)
    found, _ = trained(waits, capture, data, setting, True, networks)
    assert capture.failed is not None
    assert "\n" not in capture.failed
    assert_same_bits(expected, found)
