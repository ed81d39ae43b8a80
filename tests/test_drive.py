"""What a run does with trials that are stored, lost, given up, or asked for by two arms of two runs."""

from __future__ import annotations

import attrs
import pytest
from tiny_case import prepared_case, run_case
from torch.nn.functional import cross_entropy

from ddrank_core.asked import Asked
from ddrank_core.engine.executors.contract import Finished, Lost
from ddrank_core.engine.executors.local import LocalExecutor
from ddrank_core.engine.run import execute
from ddrank_core.errors import RunFailed
from ddrank_core.store import TrialStore


class Unreliable:
    """Trains here, and loses tasks: `fails(task, attempt)` says which, and in which way."""

    def __init__(self, inner, fails):
        self._inner, self._fails, self._lost = inner, fails, []
        self.tasks = []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def submit(self, task):
        self.tasks.append(task)
        attempt = sum(bool(set(task.trials) & set(one.trials)) for one in self.tasks)
        if (found := self._fails(task, attempt)) is not None:
            self._lost.append(Lost(task=task, error=f"lost {task.arm}", again=found == "again"))
        else:
            self._inner.submit(task)

    def wait(self, seconds):
        if self._lost:
            return [self._lost.pop()]
        return self._inner.wait(seconds)


def run(folder, prepared, fails, cohort=None, events=None):
    made = []

    def make(prepared, asked, on_epoch):
        made.append(Unreliable(LocalExecutor(prepared, asked, on_epoch), fails))
        return made[0]

    store = TrialStore(folder)
    try:
        emit = (lambda hook, event: events.append(event)) if events is not None else lambda hook, event: None
        return execute(prepared, store, emit, cohort=cohort, make=make), made[0]
    finally:
        store.close()


def essence(outcome):
    return [attrs.evolve(trial, seconds=0.0, reused=False) for trial in outcome.trials]


def test_a_task_that_is_lost_twice_is_trained_at_the_third_attempt(tmp_path):
    prepared = prepared_case(tmp_path)
    quiet = run_case(prepared, tmp_path / "quiet")
    events = []
    outcome, executor = run(
        tmp_path / "cache", prepared, lambda task, attempt: "again" if attempt < 3 else None, events=events
    )
    assert essence(quiet) == essence(outcome)
    assert quiet.scores == outcome.scores
    assert len(executor.tasks) == 3 * prepared.plan.count()
    failures = [event for event in events if type(event).__name__ == "TrialFailed"]
    assert [1, 2] == sorted({event.attempt for event in failures})
    assert not any(event.final for event in failures)


def test_a_trial_that_fails_three_times_is_recorded_and_the_rest_finish(tmp_path):
    prepared = prepared_case(tmp_path)

    def fails(task, attempt):
        (trial,) = task.trials
        return "again" if (trial.arm, trial.repeat, trial.learning_rate) == ("rdm-any", 1, 0.1) else None

    events = []
    outcome, executor = run(tmp_path / "cache", prepared, fails, events=events)
    (failed,) = outcome.failed
    assert ("rdm-any", 1, 0.1, "lost rdm-any") == (
        failed.arm,
        failed.repeat,
        failed.learning_rate,
        failed.error,
    )
    assert 3 == sum(
        trial.arm == "rdm-any" and trial.repeat == 1 and trial.learning_rate == 0.1
        for task in executor.tasks
        for trial in task.trials
    )
    assert prepared.plan.count() == len(outcome.trials)
    assert outcome.scores["hlr"].mean is not None
    assert (None, "trials failed: 1 of rdm-any") == (
        outcome.scores["ior"].mean,
        outcome.scores["ior"].reason,
    )
    assert outcome.arms["rdm-any"].mean is None
    assert 1 == outcome.arms["rdm-any"].failed
    assert any("1 of 22 trials failed, the first so: lost rdm-any." == note for note in outcome.notes)
    last = [event for event in events if type(event).__name__ == "TrialFailed"][-1]
    assert (True, 3) == (last.final, last.attempt)
    # The next run tries it again, and trains nothing else.
    again, executor = run(tmp_path / "cache", prepared, lambda task, attempt: None)
    assert 1 == len(executor.tasks)
    assert again.scores["ior"].mean is not None
    assert essence(again) == essence(run_case(prepared, tmp_path / "quiet"))


def test_an_arm_of_which_nothing_works_is_given_up_after_its_first_trial(tmp_path):
    prepared = prepared_case(tmp_path)
    outcome, executor = run(
        tmp_path / "cache", prepared, lambda task, _: "never" if task.arm == "syn-hard" else None
    )
    assert 1 == sum(task.arm == "syn-hard" for task in executor.tasks)
    assert outcome.scores["hlr"].mean is None
    assert outcome.scores["ior"].mean is not None


def test_a_run_of_which_nothing_works_fails_in_one_line(tmp_path):
    prepared = prepared_case(tmp_path)
    with pytest.raises(RunFailed, match=r"^lost full-hard$"):
        run(tmp_path / "cache", prepared, lambda task, attempt: "never")


def test_a_cohort_that_fails_is_tried_again_and_then_one_by_one(tmp_path):
    prepared = prepared_case(tmp_path)
    quiet = run_case(prepared, tmp_path / "quiet")

    def fails(task, attempt):
        bad = any((t.arm, t.repeat, t.learning_rate) == ("syn-any", 0, 0.1) for t in task.trials)
        return "again" if bad else None

    outcome, executor = run(tmp_path / "cache", prepared, fails, cohort=4)
    sizes = [len(task.trials) for task in executor.tasks if task.arm == "syn-any"]
    assert [4, 4, 1, 1, 1, 1] == sizes
    (failed,) = outcome.failed
    assert ("syn-any", 0, 0.1) == (failed.arm, failed.repeat, failed.learning_rate)
    kept = {(t.arm, t.repeat, t.learning_rate): t for t in quiet.trials if t.phase == "final"}
    for trial in outcome.trials:
        if trial.arm == "syn-any" and trial.error is None and trial.accuracy is not None:
            assert abs(kept[trial.arm, trial.repeat, trial.learning_rate].accuracy - trial.accuracy) < 0.1


def test_more_repeats_train_only_the_new_ones(tmp_path):
    few = prepared_case(tmp_path)
    run(tmp_path / "cache", few, lambda task, attempt: None)
    more = prepared_case(tmp_path, "protocol.repeats=3")
    outcome, executor = run(tmp_path / "cache", more, lambda task, attempt: None)
    trained = {(trial.arm, trial.repeat) for task in executor.tasks for trial in task.trials}
    assert {2} == {repeat for _, repeat in trained}
    assert essence(outcome) == essence(run_case(more, tmp_path / "fresh"))


def test_another_weight_scores_anew_without_a_training(tmp_path):
    run(tmp_path / "cache", prepared_case(tmp_path), lambda task, attempt: None)
    other = prepared_case(tmp_path, "weights.lrs=0.9", "weights.ars=0.1")
    outcome, executor = run(tmp_path / "cache", other, lambda task, attempt: None)
    assert not executor.tasks
    assert outcome.scores == run_case(other, tmp_path / "fresh").scores


def test_an_arm_that_another_run_has_trained_is_read_back(tmp_path):
    """Two methods share what is trained on real data alone; the second differs in its distilled set."""
    from tiny_case import write_case

    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    first, second = prepared_case(one), prepared_case(two)
    write_case(two)
    images = second.distilled.images
    second = attrs.evolve(
        second, distilled=attrs.evolve(second.distilled, images=images.flip(3)), distilled_digest="0" * 64
    )
    run(tmp_path / "cache", first, lambda task, attempt: None)
    _, executor = run(tmp_path / "cache", second, lambda task, attempt: None)
    arms = {task.arm for task in executor.tasks}
    assert {"syn-hard", "syn-any", "syn-naug"} >= arms > set()
    assert not {"full-hard", "rdm-any", "rdm-naug"} & arms


class Greedy:
    """A loss that a cohort cannot have, for it looks at its values."""

    def __call__(self, logits, targets):
        return cross_entropy(logits, targets.hard) if float(logits.detach().sum()) < 1e9 else logits.sum()


def test_trials_that_cannot_be_trained_at_once_are_committed_one_by_one(tmp_path):
    prepared = prepared_case(tmp_path)
    arms = tuple(
        attrs.evolve(
            arm,
            training=attrs.evolve(arm.training, loss=attrs.evolve(arm.training.loss, component=Greedy())),
        )
        for arm in prepared.plan.arms
    )
    prepared = attrs.evolve(prepared, plan=attrs.evolve(prepared.plan, arms=arms))
    outcome, executor = run(tmp_path / "cache", prepared, lambda task, attempt: None, cohort=4)
    assert {1} == {len(task.trials) for task in executor.tasks}
    assert any("trained one by one" in note for note in outcome.notes)


def test_a_worker_that_finds_out_late_gives_the_rest_back(tmp_path):
    """An executor may learn only on the spot that trials cannot be trained at once."""
    prepared = prepared_case(tmp_path)

    class Late(Unreliable):
        def most(self, arm, trial):
            return 4

        def wait(self, seconds):
            (task,) = [self._inner._queue.popleft()]
            first = attrs.evolve(task, trials=task.trials[:1], keys=task.keys[:1])
            self._inner.submit(first)
            (found,) = self._inner.wait(seconds)
            return [Finished(task=task, dones=found.dones, alone=len(task.trials) > 1)]

    made = []

    def make(prepared, asked, on_epoch):
        made.append(Late(LocalExecutor(prepared, Asked(), on_epoch), lambda task, attempt: None))
        return made[0]

    store = TrialStore(tmp_path / "cache")
    try:
        outcome = execute(prepared, store, lambda hook, event: None, make=make)
    finally:
        store.close()
    assert essence(run_case(prepared, tmp_path / "quiet")) == essence(outcome)
    sizes = [len(task.trials) for task in made[0].tasks if task.arm == "syn-any"]
    assert [4, 1, 1, 1] == sizes


def test_the_store_says_what_a_trial_was_and_what_it_reached(tmp_path):
    prepared = prepared_case(tmp_path)
    _, executor = run(tmp_path / "cache", prepared, lambda task, attempt: None)
    store = TrialStore(tmp_path / "cache")
    task = next(task for task in executor.tasks if task.arm == "rdm-any")
    found = store.get(task.keys[0])
    store.close()
    (trial,) = task.trials
    about = found.about
    assert ("case", "arrays", "convnet (depth=1, width=8)", "rdm-any", "final") == (
        about.run,
        about.dataset,
        about.student,
        about.arm,
        about.phase,
    )
    assert (trial.repeat, trial.learning_rate, trial.seed, trial.subset_seed) == (
        about.repeat,
        about.learning_rate,
        about.seed,
        about.subset_seed,
    )
    assert about.determinants["learning_rate"] == trial.learning_rate
    assert about.determinants["data"]["subset_seed"] == trial.subset_seed
    assert len(found.predictions) == 2 * len(prepared.real.test_labels)


def test_what_was_never_validated_is_not_served_to_a_run_that_chooses_by_it(tmp_path):
    """The split is carved for full-hard alone: the other arms' only rate is not validated."""
    full = {
        "recipe": {
            "optimizer": "sgd",
            "schedule": "constant",
            "epochs": 2,
            "batch_size": 16,
            "learning_rates": [0.01, 0.1],
        }
    }
    one = prepared_case(tmp_path, "protocol.learning_rates=[0.01]", full_data=full)
    assert one.plan.validation_share > 0
    run(tmp_path / "cache", one, lambda task, attempt: None)
    both = prepared_case(tmp_path, full_data=full)
    after, _ = run(tmp_path / "cache", both, lambda task, attempt: None)
    fresh = run_case(both, tmp_path / "fresh")
    assert essence(fresh) == essence(after)
    assert fresh.scores == after.scores
    assert fresh.arms == after.arms


def test_one_trial_that_fails_does_not_keep_an_arm_from_going_on_where_it_was(tmp_path):
    prepared = prepared_case(tmp_path)
    (arm,) = (arm for arm in prepared.plan.arms if arm.name == "rdm-any")

    def stop(task, attempt):
        return "never" if task.arm == "rdm-any" and task.trials[0].repeat == 1 else None

    run(tmp_path / "cache", prepared, stop)

    def fails(task, attempt):
        (trial,) = task.trials
        return "again" if (trial.arm, trial.repeat, trial.learning_rate) == ("rdm-any", 1, 0.01) else None

    outcome, executor = run(tmp_path / "cache", prepared, fails)
    tried = {task.trials[0].learning_rate for task in executor.tasks}
    assert {0.01, 0.1} == tried
    assert prepared.plan.count() == len(outcome.trials)
    assert 1 == len(outcome.failed)
    assert 2 == len(arm.candidates)


def test_a_trial_that_is_not_tried_is_in_the_record_too(tmp_path):
    prepared = prepared_case(tmp_path)

    def fails(task, attempt):
        return "never" if task.arm == "syn-hard" else None

    outcome, _ = run(tmp_path / "cache", prepared, fails)
    errors = [trial.error for trial in outcome.failed]
    assert ["lost syn-hard", *["not tried, since another failed: lost syn-hard"] * 3] == errors
    assert prepared.plan.count() == len(outcome.trials)
