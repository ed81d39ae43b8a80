"""The engine: seeds, splits, protocols, what is trained and what is not, resuming, divergence."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import attrs
import pytest
import torch
from tiny_case import CLASSES, CONFIG, PER_CLASS, RECIPE, pictures, prepared_case, run_case
from torch import nn
from torch.nn import functional as F

from ddrank_core.engine.device import resolve, threads_for
from ddrank_core.engine.images import ImageSet, normaliser
from ddrank_core.engine.prepared import draw_subset, split_training_set
from ddrank_core.engine.rehearse import rehearse_training
from ddrank_core.engine.seed import derive, generator
from ddrank_core.engine.train import Setting, build, predict, train
from ddrank_core.errors import ConfigError, DDRankError, RunFailed
from ddrank_core.store import TrialStore

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Keep trained teachers and trials of a test in its own folder."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def essence(outcome):
    """Return what must repeat itself: every trial without its clock and where it came from."""
    return [attrs.evolve(trial, seconds=0.0, reused=False) for trial in outcome.trials]


# -- training ----------------------------------------------------------------------------------


def test_training_is_the_plain_loop_written_out(tmp_path):
    prepared = prepared_case(tmp_path, recipe={**RECIPE, "augmentation": "none"})
    arm = next(arm for arm in prepared.plan.trained if arm.name == "syn-hard")
    setting = Setting(device=CPU, precision="fp32", space=prepared.space, teachers=lambda images: ())
    images, labels = prepared.distilled.images, prepared.distilled.labels
    architecture = prepared.config.student.component

    network = build(architecture, CLASSES, prepared.real.image_shape, seed=7)
    finite = train(
        network,
        ImageSet(images=images, labels=labels),
        arm.training,
        0.05,
        7,
        setting,
        lambda epoch: None,
    )

    torch.manual_seed(derive(7, "weights"))
    reference = architecture.build(CLASSES, prepared.real.image_shape)
    velocity = [torch.zeros_like(weight) for weight in reference.parameters()]
    order = generator(derive(7, "order"))
    for _ in range(4):
        for index in torch.randperm(6, generator=order).split(4):
            reference.zero_grad()
            F.cross_entropy(reference(images[index]), labels[index]).backward()
            with torch.no_grad():
                for weight, speed in zip(reference.parameters(), velocity, strict=True):
                    speed.mul_(0.9).add_(weight.grad + 0.0005 * weight)
                    weight.sub_(0.05 * speed)
    assert finite
    for expected, actual in zip(reference.parameters(), network.parameters(), strict=True):
        assert torch.allclose(expected, actual, atol=1e-6)


def test_training_touches_neither_the_global_generator_nor_the_images(tmp_path):
    prepared = prepared_case(tmp_path)
    images = prepared.distilled.images.clone()
    state = torch.get_rng_state()

    run_case(prepared, tmp_path / "cache")

    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(images, prepared.distilled.images)


def test_uint8_images_are_normalised_as_they_are_handed_out():
    images = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    data = ImageSet(images=images, labels=torch.zeros(1), space=normaliser((0.2,), (0.5,), CPU))
    assert torch.allclose(torch.tensor([[[[-0.4, 1.6], [0.0, 0.4]]]]), data.batch(torch.tensor([0])))


def test_a_network_with_infinite_logits_predicts_nothing(tmp_path):
    prepared = prepared_case(tmp_path)
    network = build(prepared.config.student.component, CLASSES, prepared.real.image_shape, 0)
    torch.nn.init.constant_(network.classifier.bias, float("inf"))
    setting = Setting(device=CPU, precision="fp32", space=prepared.space, teachers=lambda i: ())
    assert predict(network, ImageSet(images=torch.zeros(2, 1, 8, 8), labels=torch.zeros(2)), setting) is None


# -- seeds -------------------------------------------------------------------------------------


def test_the_same_config_gives_the_same_trials_bit_for_bit(tmp_path):
    prepared = prepared_case(tmp_path)
    first = run_case(prepared, tmp_path / "one")
    second = run_case(prepared, tmp_path / "two")
    assert essence(first) == essence(second)
    assert len(first.trials) == prepared.plan.count()


def test_the_order_of_execution_changes_no_trial(tmp_path):
    prepared = prepared_case(tmp_path)
    backwards = attrs.evolve(
        prepared,
        plan=attrs.evolve(
            prepared.plan,
            arms=tuple(reversed([attrs.evolve(arm, same_as=None) for arm in prepared.plan.arms])),
        ),
    )
    forward = {trial: trial for trial in essence(run_case(prepared, tmp_path / "one"))}
    other = essence(run_case(backwards, tmp_path / "two"))
    assert set(forward) <= set(other)


def test_another_seed_gives_other_trials(tmp_path):
    one = run_case(prepared_case(tmp_path, "seed=0"), tmp_path / "one")
    two = run_case(prepared_case(tmp_path, "seed=1"), tmp_path / "two")
    assert not {trial.seed for trial in one.trials} & {trial.seed for trial in two.trials}


def test_repeats_of_different_arms_share_their_seed_and_rates_do_too(tmp_path):
    plan = prepared_case(tmp_path).plan
    seeds = {
        (trial.repeat, trial.seed)
        for arm in plan.trained
        for trial in plan.first_trials(arm, plan.rungs[0], plan.candidates)
    }
    assert len(seeds) == plan.repeats


def test_weights_and_subsets_have_separate_seeds(tmp_path):
    def random_trials(*overrides):
        plan = prepared_case(tmp_path, *overrides).plan
        arm = next(arm for arm in plan.trained if arm.name == "rdm-any")
        return plan.first_trials(arm, plan.rungs[0], plan.candidates)

    for before, after in zip(random_trials(), random_trials("subset_seed=5"), strict=True):
        assert before.seed == after.seed
        assert before.subset_seed != after.subset_seed


def test_dropout_draws_from_the_trials_seed_only(tmp_path):
    prepared = prepared_case(tmp_path)
    training = prepared.plan.trained[0].training
    setting = Setting(device=CPU, precision="fp32", space=prepared.space, teachers=lambda i: ())
    data = ImageSet(images=prepared.distilled.images, labels=prepared.distilled.labels)

    def weights(global_seed):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, CLASSES))
        torch.manual_seed(global_seed)
        train(network, data, training, 0.1, 3, setting, lambda epoch: torch.rand(1))
        return network[2].weight

    assert torch.equal(weights(1), weights(2))


# -- real images -------------------------------------------------------------------------------


def test_the_validation_split_is_stratified_and_apart(tmp_path):
    real = prepared_case(tmp_path).real
    split = split_training_set(real, 0.2, seed=0)
    assert [4, 4, 4] == real.train_labels[split.validation].bincount().tolist()
    assert list(range(60)) == sorted([*split.rest.tolist(), *split.validation.tolist()])


def test_a_random_subset_matches_the_distilled_set_class_by_class(tmp_path):
    prepared = prepared_case(tmp_path)
    index = draw_subset(prepared, subset_seed=3)
    assert prepared.counts == (2, 2, 2)
    assert [2, 2, 2] == prepared.real.train_labels[index].bincount().tolist()
    assert len(set(index.tolist())) == 6
    assert not set(index.tolist()) & set(prepared.split.validation.tolist())


def test_random_subsets_differ_between_repeats(tmp_path):
    prepared = prepared_case(tmp_path)
    arm = next(arm for arm in prepared.plan.trained if arm.name == "rdm-any")
    drawn = {
        tuple(draw_subset(prepared, trial.subset_seed).tolist())
        for trial in prepared.plan.first_trials(arm, prepared.plan.rungs[0], prepared.plan.candidates)
    }
    assert len(drawn) == prepared.plan.repeats


# -- what is trained ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "arms"),
    [
        (["hlr"], {"full-hard", "syn-hard"}),
        (["ior"], {"syn-any", "rdm-any"}),
        (["ars"], {"syn-aug", "rdm-aug", "syn-naug", "rdm-naug"}),
        (["lrs"], {"full-hard", "syn-hard", "syn-any", "rdm-any"}),
    ],
)
def test_only_the_arms_that_the_scores_need_are_planned(tmp_path, scores, arms):
    plan = prepared_case(tmp_path, scores=scores).plan
    assert arms == {arm.name for arm in plan.arms}


def test_equal_arms_are_trained_once(tmp_path):
    plan = prepared_case(tmp_path).plan
    shared = {arm.name: arm.same_as for arm in plan.arms if arm.same_as}
    # Hard labels and the recipe's augmentation: only the plain distilled arm stands twice more.
    assert {"syn-aug": "syn-any", "rdm-aug": "rdm-any", "syn-naug": "syn-hard"} == shared


def test_the_distilled_sets_own_rate_is_tried_by_every_arm(tmp_path):
    plan = prepared_case(tmp_path, own_rate=0.03).plan
    assert plan.candidates == (0.01, 0.03, 0.1)
    for arm in plan.trained:
        assert {0.01, 0.03, 0.1} == {
            trial.learning_rate for trial in plan.first_trials(arm, plan.rungs[0], plan.candidates)
        }


def full_data(**changes):
    return {"recipe": {"optimizer": "sgd", "schedule": "constant", "epochs": 2, "batch_size": 16, **changes}}


def test_the_full_data_are_trained_at_rates_of_their_own(tmp_path):
    prepared = prepared_case(tmp_path, scores=["hlr"], full_data=full_data(learning_rates=[0.05]))
    plan, outcome = prepared.plan, run_case(prepared, tmp_path / "cache")
    full, syn = plan.trained
    assert ((0.05,), (0.01, 0.1)) == (full.candidates, syn.candidates)
    trials = [trial for trial in outcome.trials if trial.arm == "full-hard"]
    # One rate leaves nothing to choose: no search, no validation, one training on everything per repeat.
    assert [("final", 0.05, None)] * 2 == [
        (trial.phase, trial.learning_rate, trial.validation_accuracy) for trial in trials
    ]
    assert all(trial.accuracy is not None for trial in trials)
    assert plan.count() == len(outcome.trials) == 2 + 4
    assert [0.05] == outcome.protocol["full_data_learning_rates"]
    assert [0.01, 0.1] == outcome.protocol["learning_rates"]
    assert not any("end of the grid for full-hard" in note for note in outcome.notes)


def test_rates_of_the_full_data_are_searched_where_the_others_have_one(tmp_path):
    prepared = prepared_case(
        tmp_path,
        scores=["hlr"],
        full_data=full_data(learning_rates=[0.1, 0.02]),
        protocol={"use": "strict", "repeats": 2, "learning_rates": [0.01], "validation": 0.2},
    )
    outcome = run_case(prepared, tmp_path / "cache")
    full = [trial for trial in outcome.trials if trial.arm == "full-hard"]
    assert ["search"] * 4 + ["final"] * 2 == [trial.phase for trial in full]
    chosen = {trial.learning_rate for trial in full[4:]}
    best = max(
        [0.02, 0.1], key=lambda rate: sum(t.validation_accuracy for t in full[:4] if t.learning_rate == rate)
    )
    assert {best} == chosen
    assert len(prepared.split.validation) > 0


def test_a_given_full_accuracy_trains_no_full_arm(tmp_path):
    prepared = prepared_case(
        tmp_path, full_data={"accuracy": 0.9, "source": "a table"}, scores=["hlr", "lrs"]
    )
    outcome = run_case(prepared, tmp_path / "cache")
    assert "full-hard" not in {trial.arm for trial in outcome.trials}
    assert outcome.arms["full-hard"].source == "a table"
    expected = [0.9 - value for value in outcome.arms["syn-hard"].accuracies]
    assert expected == pytest.approx(outcome.scores["hlr"].values)


def test_the_full_arm_is_searched_apart_and_then_trained_on_everything(tmp_path):
    outcome = run_case(prepared_case(tmp_path, scores=["hlr"]), tmp_path / "cache")
    full = [trial for trial in outcome.trials if trial.arm == "full-hard"]
    search = [trial for trial in full if trial.phase == "search"]
    final = [trial for trial in full if trial.phase == "final"]
    assert (4, 2) == (len(search), len(final))
    assert all(trial.accuracy is None and trial.validation_accuracy is not None for trial in search)
    assert all(trial.accuracy is not None and trial.validation_accuracy is None for trial in final)


def test_the_labels_of_the_distilled_set_may_stand_in_any_order(tmp_path):
    prepared = prepared_case(tmp_path)
    labels = prepared.distilled.labels.tolist()
    assert labels != sorted(labels)
    outcome = run_case(prepared, tmp_path / "cache")
    # Stripes are easy: students that learnt from shuffled labels as if sorted would be near 1/3.
    assert outcome.arms["full-hard"].mean > 0.9
    assert outcome.arms["syn-hard"].mean > 0.6


# -- protocols ---------------------------------------------------------------------------------


class WatchedLabels:
    """The real data, with a note of how many trials were finished whenever the test labels are read."""

    def __init__(self, real, reads, finished):
        self._real, self._reads, self._finished = real, reads, finished

    def __getattr__(self, name):
        if name == "test_labels":
            self._reads.append(len(self._finished))
        return getattr(self._real, name)


def reads_of_test_labels(prepared, cache):
    reads, finished = [], []

    def emit(hook, event):
        if hook == "ddrank_trial_finished":
            finished.append(event)

    watched = attrs.evolve(prepared, real=WatchedLabels(prepared.real, reads, finished))
    run_case(watched, cache, emit)
    return reads, len(finished)


def test_strict_never_reads_test_labels_before_the_last_trial_is_done(tmp_path):
    prepared = prepared_case(tmp_path)
    reads, finished = reads_of_test_labels(prepared, tmp_path / "cache")
    assert finished == prepared.plan.count()
    assert reads
    assert set(reads) == {finished}


def test_ddranking_reads_them_while_it_trains(tmp_path):
    """The watch above can fail: the older protocol does what strict must not."""
    prepared = prepared_case(
        tmp_path, protocol={"use": "ddranking-0.2", "repeats": 2, "learning_rates": [0.01]}
    )
    reads, finished = reads_of_test_labels(prepared, tmp_path / "cache")
    assert min(reads) < finished


def test_strict_picks_the_rate_with_the_best_validation_accuracy(tmp_path):
    outcome = run_case(prepared_case(tmp_path), tmp_path / "cache")
    for arm in outcome.arms.values():
        if arm.same_as:
            continue
        trials = [t for t in outcome.trials if t.arm == arm.name and t.validation_accuracy is not None]
        means = {
            rate: sum(t.validation_accuracy for t in trials if t.learning_rate == rate) / 2
            for rate in (0.01, 0.1)
        }
        best = min(rate for rate in means if means[rate] == max(means.values()))
        assert {best} == set(arm.learning_rates)


def test_strict_tests_only_the_selected_trials(tmp_path):
    outcome = run_case(prepared_case(tmp_path, scores=["ior"]), tmp_path / "cache")
    for arm in ("syn-any", "rdm-any"):
        tested = [t for t in outcome.trials if t.arm == arm and t.accuracy is not None]
        assert [t.learning_rate for t in tested] == list(outcome.arms[arm].learning_rates)


def test_ddranking_takes_the_best_epoch_and_rate_of_each_repeat_on_the_test_set(tmp_path):
    protocol = {"use": "ddranking-0.2", "repeats": 2, "learning_rates": [0.01, 0.1], "test_interval": 1}
    outcome = run_case(prepared_case(tmp_path, scores=["ior"], protocol=protocol), tmp_path / "cache")
    for arm in ("syn-any", "rdm-any"):
        best = [
            max(t.accuracy for t in outcome.trials if t.arm == arm and t.repeat == repeat)
            for repeat in range(2)
        ]
        assert best == list(outcome.arms[arm].accuracies)
    assert outcome.protocol["selected_on_test_set"] is True
    assert any("selected on the test set" in note for note in outcome.notes)


def test_with_one_rate_nothing_is_set_aside(tmp_path):
    protocol = {"use": "strict", "repeats": 2, "learning_rates": [0.01]}
    prepared = prepared_case(tmp_path, protocol=protocol)
    assert len(prepared.split.validation) == 0
    outcome = run_case(prepared, tmp_path / "cache")
    assert all(trial.phase == "final" and trial.accuracy is not None for trial in outcome.trials)


# -- divergence --------------------------------------------------------------------------------


def test_a_diverged_trial_is_recorded_and_never_averaged(tmp_path):
    protocol = {"use": "strict", "repeats": 2, "learning_rates": [1e30], "validation": 0.2}
    outcome = run_case(prepared_case(tmp_path, scores=["ior"], protocol=protocol), tmp_path / "cache")
    assert all(trial.diverged and trial.accuracy is None for trial in outcome.trials)
    assert outcome.arms["syn-any"].mean is None
    assert outcome.scores["ior"].mean is None
    assert outcome.scores["ior"].reason == ("selected trials diverged: 2 of 2 of syn-any, 2 of 2 of rdm-any")


def test_strict_passes_over_a_rate_that_diverges(tmp_path):
    protocol = {"use": "strict", "repeats": 2, "learning_rates": [0.05, 1e30], "validation": 0.2}
    outcome = run_case(prepared_case(tmp_path, scores=["ior"], protocol=protocol), tmp_path / "cache")
    assert outcome.arms["syn-any"].learning_rates == (0.05, 0.05)
    assert outcome.scores["ior"].mean is not None
    assert sum(trial.diverged for trial in outcome.trials) == 4


# -- the store ---------------------------------------------------------------------------------


def test_a_rerun_trains_nothing_and_scores_the_same(tmp_path):
    prepared = prepared_case(tmp_path)
    first, second = run_case(prepared, tmp_path / "cache"), run_case(prepared, tmp_path / "cache")
    assert all(trial.reused for trial in second.trials)
    assert essence(first) == essence(second)
    assert first.scores == second.scores


@pytest.mark.parametrize("after", [1, 5, 9])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, after):
    prepared = prepared_case(tmp_path)
    undisturbed = run_case(prepared, tmp_path / "other")

    def emit(hook, event):
        if hook == "ddrank_trial_finished" and event.done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_case(prepared, tmp_path / "cache", emit)
    resumed = run_case(prepared, tmp_path / "cache")

    assert sum(trial.reused for trial in resumed.trials) == after
    assert essence(undisturbed) == essence(resumed)
    assert undisturbed.scores == resumed.scores


def test_adding_repeats_trains_only_the_new_ones(tmp_path):
    run_case(prepared_case(tmp_path, scores=["ior"]), tmp_path / "cache")
    more = run_case(prepared_case(tmp_path, "protocol.repeats=3", scores=["ior"]), tmp_path / "cache")
    assert {0, 1} == {trial.repeat for trial in more.trials if trial.reused}
    assert {2} == {trial.repeat for trial in more.trials if not trial.reused}


@pytest.mark.parametrize(
    "override",
    ["recipe.epochs=5", "recipe.batch_size=3", "student.width=4", "seed=1", "protocol.validation=0.3"],
)
def test_what_changes_a_trial_changes_its_digest(tmp_path, override):
    run_case(prepared_case(tmp_path, scores=["ior"]), tmp_path / "cache")
    again = run_case(prepared_case(tmp_path, override, scores=["ior"]), tmp_path / "cache")
    assert not any(trial.reused for trial in again.trials)


def test_what_happens_on_the_test_images_never_changes_the_choice_of_a_rerun(tmp_path, monkeypatch):
    from ddrank_core.engine import trial

    prepared = prepared_case(tmp_path, scores=["ior"])

    def fails_on_the_test_set(network, data, setting):
        return None if len(data) == 30 else predict(network, data, setting)

    monkeypatch.setattr(trial, "predict", fails_on_the_test_set)
    first = run_case(prepared, tmp_path / "cache")
    monkeypatch.undo()
    again = run_case(prepared, tmp_path / "cache")

    for arm in ("syn-any", "rdm-any"):
        assert first.arms[arm].learning_rates == again.arms[arm].learning_rates
        assert first.arms[arm].accuracies == again.arms[arm].accuracies == (None, None)
        assert again.arms[arm].diverged == 2


def test_a_trial_that_another_run_tested_has_no_accuracy_where_it_is_not_selected(tmp_path):
    narrow = {"use": "strict", "repeats": 2, "learning_rates": [1e-5, 1e-4], "validation": 0.2}
    wide = {**narrow, "learning_rates": [1e-5, 1e-4, 0.1]}
    run_case(prepared_case(tmp_path, scores=["ior"], protocol=narrow), tmp_path / "cache")
    warm = run_case(prepared_case(tmp_path, scores=["ior"], protocol=wide), tmp_path / "cache")
    cold = run_case(prepared_case(tmp_path, scores=["ior"], protocol=wide), tmp_path / "other")
    assert any(trial.reused for trial in warm.trials)
    assert essence(cold) == essence(warm)


def test_a_damaged_entry_of_the_store_is_trained_again(tmp_path):
    import sqlite3

    prepared = prepared_case(tmp_path, scores=["ior"])
    first = run_case(prepared, tmp_path / "cache")
    with sqlite3.connect(tmp_path / "cache" / "trials.sqlite") as database:
        database.execute("UPDATE trials SET predictions = x'01' WHERE predictions IS NOT NULL")
    again = run_case(prepared, tmp_path / "cache")
    assert essence(first) == essence(again)
    assert not all(trial.reused for trial in again.trials)


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    import sqlite3

    from ddrank_core.errors import DataError

    TrialStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "trials.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(DataError, match="written by a newer version of ddrank"):
        TrialStore(tmp_path)


# -- soft labels and teachers ------------------------------------------------------------------

SOFT = {**RECIPE, "labels": "soft", "loss": {"use": "sce"}}


def test_random_images_get_their_stored_soft_labels_from_the_teacher(tmp_path):
    soft = F.one_hot(torch.zeros(6, dtype=torch.int64), CLASSES).float()
    prepared = prepared_case(
        tmp_path,
        soft=soft,
        soft_kind="probabilities",
        recipe=SOFT,
        teachers=[{"use": "convnet", "depth": 1, "width": 8}],
        scores=["ior"],
        full_data={"recipe": {**CONFIG["full_data"]["recipe"], "epochs": 20, "learning_rate": 0.05}},
    )
    outcome = run_case(prepared, tmp_path / "cache")
    # The stored labels all say class 0; the teacher, who knows the stripes, labels the random images.
    assert outcome.arms["syn-any"].mean == pytest.approx(1 / 3)
    assert outcome.arms["rdm-any"].mean > 0.5
    assert outcome.teachers[0]["accuracy"] > 0.9


def test_a_teacher_is_trained_once_and_then_read_from_the_cache(tmp_path):
    changes = {
        "recipe": {**RECIPE, "labels": "teacher", "loss": {"use": "kl", "temperature": 2.0}},
        "teachers": [{"use": "convnet", "depth": 1, "width": 8}],
        "scores": ["ior"],
    }
    first = run_case(prepared_case(tmp_path, **changes), tmp_path / "one")
    second = run_case(prepared_case(tmp_path, **changes), tmp_path / "two")
    assert ["trained here"] == [teacher["source"] for teacher in first.teachers]
    assert ["cache"] == [teacher["source"] for teacher in second.teachers]
    assert first.teachers[0]["digest"] == second.teachers[0]["digest"]
    assert essence(first) == essence(second)


def test_a_damaged_teacher_in_the_cache_is_trained_again(tmp_path, cache):
    changes = {
        "recipe": {**RECIPE, "labels": "teacher", "loss": {"use": "kl"}},
        "teachers": [{"use": "convnet", "depth": 1, "width": 8}],
        "scores": ["ior"],
    }
    first = run_case(prepared_case(tmp_path, **changes), tmp_path / "one")
    (file,) = (cache / "teachers").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    second = run_case(prepared_case(tmp_path, **changes), tmp_path / "two")
    assert ["trained here"] == [teacher["source"] for teacher in second.teachers]
    assert essence(first) == essence(second)


def test_a_teacher_that_no_arm_asks_is_not_trained(tmp_path, cache):
    outcome = run_case(prepared_case(tmp_path, teachers=["convnet"], scores=["ior"]), tmp_path / "one")
    assert outcome.teachers == ()
    assert not (cache / "teachers").exists()


def checkpoint_case(tmp_path, state):
    torch.save(state, tmp_path / "teacher.pt")
    teacher = {"use": "convnet", "depth": 1, "width": 8, "checkpoint": "teacher.pt"}
    recipe = {**RECIPE, "labels": "teacher", "loss": {"use": "kl"}}
    return prepared_case(tmp_path, recipe=recipe, teachers=[teacher], scores=["ior"])


def state_of(tmp_path, **parameters):
    from ddrank_networks.convnet import ConvNet

    return ConvNet(**parameters).build(CLASSES, (1, 8, 8)).state_dict()


def knowing_state():
    """Return the weights of a network that has learnt the tiny case's classes: others are refused."""
    from ddrank_networks.convnet import ConvNet

    images, labels = (torch.from_numpy(array) for array in pictures(PER_CLASS, 0))
    images = (images.float() / 255).unsqueeze(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ConvNet(depth=1, width=8).build(CLASSES, (1, 8, 8))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(network((images - images.mean()) / images.std()), labels).backward()
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"module." + k: v for k, v in s.items()}]
)
def test_a_teachers_checkpoint_is_read_in_its_usual_shapes(tmp_path, wrap):
    outcome = run_case(checkpoint_case(tmp_path, wrap(knowing_state())), tmp_path / "c")
    assert outcome.teachers[0]["source"].endswith("teacher.pt")


def test_a_checkpoint_of_another_architecture_is_one_line(tmp_path):
    from ddrank_core.errors import DataError

    with pytest.raises(DataError) as caught:
        checkpoint_case(tmp_path, state_of(tmp_path, depth=2, width=8))
    assert "teachers[0].checkpoint" in str(caught.value)
    assert "a checkpoint of another architecture: it has 4 tensors more" in str(caught.value)
    assert "\n" not in str(caught.value)


class Bomb:
    """A pickle of it calls `touch` when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_a_checkpoint_that_carries_code_is_not_run(tmp_path):
    from ddrank_core.errors import DataError

    marker = tmp_path / "was-here"
    with pytest.raises(DataError, match="holds more than weights, or is damaged, and was not opened"):
        checkpoint_case(tmp_path, {"classifier.weight": Bomb(marker)})
    assert not marker.exists()


# -- bad input that only the data shows --------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": SOFT, "teachers": ["convnet"]}, "needs stored soft labels, and"),
        (
            {"recipe": {**RECIPE, "optimizer": {"use": "adam", "betas": [1.5, 0.9]}}},
            "recipe.optimizer.betas: must be two numbers from 0 to below 1, got [1.5, 0.9]",
        ),
        (
            {"recipe": {**RECIPE, "batch_size": 5}, "student": "timm/resnet10t"},
            "student: its batch norm needs batches of two images or more",
        ),
        (
            {
                "recipe": {
                    **RECIPE,
                    "labels": {"use": "teacher", "combine": "probabilities"},
                    "loss": "mse_gt",
                },
                "teachers": [{"use": "convnet", "depth": 1}],
            },
            "loss: the soft labels are probabilities, and this loss needs logits",
        ),
        ({"precision": "bf16"}, "precision: bf16 needs a CUDA device"),
        ({"student": {"use": "convnet", "depth": 7}}, "student:"),
        (
            {"distilled": {"path": "distilled.safetensors", "ipc": 3}},
            "2 images of class 0, but the declared IPC is 3",
        ),
        (
            {"recipe": {**RECIPE, "augmentation": {"use": "kornia/RandomCrop", "size": [4, 4]}}},
            "augmentation",
        ),
    ],
)
def test_a_fault_between_config_and_data_is_found_before_anything_is_trained(tmp_path, changes, message):
    with pytest.raises(DDRankError) as caught:
        rehearse_training(prepared_case(tmp_path, **changes))
    assert caught.value.exit_code == 2
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_more_images_than_are_left_to_compare_with_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="2 images of class 0, but only 1 real ones are left"):
        prepared_case(tmp_path, "protocol.validation=0.97")


def test_a_component_that_breaks_in_the_middle_ends_the_run_with_its_name(tmp_path, monkeypatch):
    from ddrank_losses.ce import CrossEntropy

    prepared = prepared_case(tmp_path)
    call = CrossEntropy.__call__

    def breaks(self, logits, targets):
        # The rehearsal has two images.
        return call(self, logits, targets) if len(logits) == 2 else 1 / 0

    monkeypatch.setattr(CrossEntropy, "__call__", breaks)
    with pytest.raises(RunFailed) as caught:
        run_case(prepared, tmp_path / "cache")
    assert "full-hard 1/2, learning rate 0.01, search: ZeroDivisionError: division by zero" in str(
        caught.value
    )
    assert "ce of ddrank" in str(caught.value)


# -- the device --------------------------------------------------------------------------------


def test_a_small_step_is_computed_on_one_thread_unless_the_user_said_otherwise(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        with threads_for(CPU, 1000):
            assert torch.get_num_threads() == 1
        with threads_for(CPU, 10**9):
            assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with threads_for(CPU, 1000):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_rehearsal_counts_the_activations_of_the_largest_step(tmp_path):
    # ConvNet-1, width 8, on 8x8: convolution, norm and activation 512 each, pooling and flattening 128
    # each, 3 logits; the full arm's batch of 16 is the largest.
    prepared = prepared_case(tmp_path)
    assert prepared.step_activations == (3 * 512 + 2 * 128 + 3) * 16


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:²", "cuda:-1", "cpu:0"])
def test_a_device_that_is_none_is_one_line(text):
    with pytest.raises(DDRankError) as caught:
        resolve(text)
    assert str(caught.value).startswith(f"--device {text}: ")
    assert caught.value.exit_code == 2


def test_a_stored_trial_that_has_lost_its_predictions_is_trained_anew(tmp_path):
    prepared, cache = prepared_case(tmp_path, scores=["ior"]), tmp_path / "cache"
    first = run_case(prepared, cache)
    with sqlite3.connect(cache / "trials.sqlite") as store:
        store.execute("UPDATE trials SET predictions = NULL")
    again = run_case(prepared, cache)
    assert not any(trial.reused for trial in again.trials)
    assert first.scores == again.scores
    assert all(trial.reused for trial in run_case(prepared, cache).trials)
