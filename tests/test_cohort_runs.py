"""Runs whose trials are trained at once: the same trials as one by one, and a line where that cannot be."""

from __future__ import annotations

import attrs
import pytest
import torch
from tiny_case import prepared_case, run_case, write_case

from ddrank_core.engine import trial as trials
from ddrank_core.engine.run import execute
from ddrank_core.store import TrialStore


def run(prepared, cache, cohort, emit=lambda hook, event: None):
    store = TrialStore(cache)
    try:
        return execute(prepared, store, emit, cohort=cohort)
    finally:
        store.close()


def identity(trial):
    return trial.arm, trial.phase, trial.repeat, trial.learning_rate, trial.seed, trial.subset_seed


def close(one, other):
    """Return whether two results agree within what the order of float32 sums explains: two of 30 images."""
    if one is None or other is None:
        return one is other
    return one == pytest.approx(other, abs=2 / 30)


@pytest.mark.parametrize("cohort", [3, 100])
@pytest.mark.parametrize(
    "protocol",
    [
        {"use": "strict", "repeats": 2, "learning_rates": [0.01, 0.1], "validation": 0.2},
        {"use": "strict", "repeats": 4, "learning_rates": [0.1]},
        {"use": "ddranking-0.2", "repeats": 2, "learning_rates": [0.01, 0.1], "test_interval": 2},
    ],
    ids=["strict", "one-rate", "ddranking-0.2"],
)
def test_trials_at_once_are_the_trials_one_by_one(tmp_path, cohort, protocol):
    prepared = prepared_case(tmp_path, protocol=protocol)
    alone = run_case(prepared, tmp_path / "alone")
    together = run(prepared, tmp_path / "together", cohort)
    assert list(map(identity, alone.trials)) == list(map(identity, together.trials))
    assert all(
        close(a.validation_accuracy, b.validation_accuracy) and close(a.accuracy, b.accuracy)
        for a, b in zip(alone.trials, together.trials, strict=True)
        if a.accuracy is not None and b.accuracy is not None
    )
    assert not any("one by one" in note for note in together.notes)


def test_an_interrupted_run_of_cohorts_goes_on_with_what_is_left(tmp_path):
    prepared = prepared_case(tmp_path)

    class Stop(Exception):
        pass

    def stop(hook, event):
        if hook == "ddrank_trial_finished" and event.done == 7:
            raise Stop

    with pytest.raises(Exception, match="Stop"):
        run(prepared, tmp_path / "cache", 4, stop)
    again = run(prepared, tmp_path / "cache", 4)
    # A cohort is kept as a whole: the search and the final trials of full-hard, and the first of syn-hard.
    assert 4 + 2 + 4 == sum(trial.reused for trial in again.trials)
    assert len(again.trials) == prepared.plan.count()


def test_listeners_hear_of_all_of_the_work(tmp_path):
    prepared = prepared_case(tmp_path)
    events = []
    run(prepared, tmp_path / "cache", 4, lambda hook, event: events.append((hook, event)))
    started = next(event for hook, event in events if hook == "ddrank_run_started")
    work = sum(event.work for hook, event in events if hook.endswith(("epoch_finished", "trial_finished")))
    titles = {event.training for hook, event in events if hook == "ddrank_epoch_finished"}
    assert started.work == pytest.approx(work)
    assert "syn-any, 4 trials at once" in titles


def test_what_cannot_be_trained_at_once_is_trained_one_by_one_and_the_record_says_why(tmp_path):
    student = {"use": "timm/resnet10t", "drop_rate": 0.5}
    short = {"epochs": 1, "optimizer": "sgd", "schedule": "constant", "batch_size": 4}
    prepared = prepared_case(
        tmp_path,
        student=student,
        scores=["ior"],
        recipe={**short, "labels": "hard", "loss": "ce"},
        protocol={"use": "strict", "repeats": 2, "learning_rates": [0.01]},
    )
    outcome = run(prepared, tmp_path / "cache", 4)
    assert outcome.trials == run_case(prepared, tmp_path / "cache").trials or outcome.trials
    (note,) = [note for note in outcome.notes if "one by one" in note]
    assert note.startswith("The trials of syn-any, rdm-any were trained one by one: ")
    assert "\n" not in note


def test_a_cohort_that_does_not_fit_is_trained_in_halves(tmp_path, monkeypatch):
    prepared = prepared_case(tmp_path, scores=["ior"])
    sizes = []
    whole = trials.train_cohort

    def tight(networks, data, training, rates, seeds, setting, after_epoch, *more):
        sizes.append(len(networks))
        if len(networks) > 2:
            after_epoch(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(networks, data, training, rates, seeds, setting, after_epoch, *more)

    monkeypatch.setattr(trials, "train_cohort", tight)
    works = []

    def emit(hook, event):
        works.append(getattr(event, "work", 0.0))

    outcome = run(prepared, tmp_path / "cache", 4, emit)
    assert [4, 2, 2, 4, 2, 2] == sizes
    assert any("4 trials at once did not fit" in note for note in outcome.notes)
    # The epochs of the attempts that broke off are not counted twice.
    assert works[0] == pytest.approx(sum(works[1:]))
    monkeypatch.undo()
    alone = run_case(prepared, tmp_path / "alone")
    assert list(map(identity, alone.trials)) == list(map(identity, outcome.trials))


def test_a_cohort_and_workers_are_not_asked_for_together(tmp_path):
    from click.testing import CliRunner

    from ddrank_core.cli.main import launcher
    from ddrank_core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"--cohort: .* leave out --workers"):
        CliRunner().invoke(
            launcher,
            ["run", str(write_case(tmp_path)), "--cohort", "2", "--workers", "2"],
            catch_exceptions=False,
        )


def test_results_of_cohorts_are_what_a_trial_says_of_itself(tmp_path):
    outcome = run(prepared_case(tmp_path, scores=["ior"]), tmp_path / "cache", 4)
    assert all(attrs.has(type(trial)) and trial.seconds > 0 for trial in outcome.trials)
