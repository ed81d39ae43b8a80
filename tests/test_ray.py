"""Trials on Ray's workers: the same numbers as here, and nothing lost when workers die or fail.

Most tests share one small cluster, which the executors find running in this process, and leave running.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from tiny_case import RECIPE, prepared_case, write_case

ray = pytest.importorskip("ray")

from ddrank_core.asked import Asked  # noqa: E402  # only where there is Ray to test
from ddrank_core.data.stored_views import StoredViews  # noqa: E402
from ddrank_core.engine.executors.ray import RayExecutor, on_ray  # noqa: E402
from ddrank_core.engine.executors.ray_bundle import open_run, pack_run, settle, surroundings  # noqa: E402
from ddrank_core.engine.prepared import Prepared  # noqa: E402
from ddrank_core.engine.run import Outcome, execute  # noqa: E402
from ddrank_core.errors import ConfigError, DataError, DeviceError, RunFailed  # noqa: E402
from ddrank_core.events import EpochFinished  # noqa: E402
from ddrank_core.plugin_choice import Choice, using  # noqa: E402
from ddrank_core.registry import default_registry  # noqa: E402
from ddrank_core.store import TrialStore  # noqa: E402

CPU = torch.device("cpu")

FAILING = '''
import os

from ddrank_core import Augmented, ComponentSpec, component, hookimpl

@hookimpl
def ddrank_augmentations():
    return [ComponentSpec("my/failing", "my_failing:Failing", "Works in one process only")]

@component
class Failing:
    """Do nothing in the process that drives the run, and raise in others."""

    def __call__(self, images, randomness):
        if os.environ.get("MY_PROCESS") != str(os.getpid()):
            raise ValueError("not here")
        return Augmented(images.clone())
'''

ACME = '''
from ddrank_core import ComponentSpec, component, hookimpl

@hookimpl
def ddrank_losses():
    return [ComponentSpec("acme/cross", "acme_cross:Cross", "Cross-entropy")]

@component
class Cross:
    """Cross-entropy."""

    def __call__(self, logits, targets):
        return logits.logsumexp(1).mean() - logits.gather(1, targets.hard[:, None]).mean()
'''


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two CPUs of this machine. Gives the folder where its workers look for distributions first."""
    site = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
        ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
        )
    yield site
    ray.shutdown()


def run(prepared: Prepared, cache: Path, emit: Any = lambda hook, event: None, **how: Any) -> Outcome:
    with closing(TrialStore(cache)) as store:
        return execute(prepared, store, emit, **how)


def numbers(outcome: Outcome) -> list[Any]:
    """Return all that a run came to but for times and places."""
    trials = [attrs.evolve(trial, seconds=0.0, how="") for trial in outcome.trials]
    return [trials, outcome.arms, outcome.scores, outcome.teachers]


def stored(cache: Path) -> int:
    with closing(sqlite3.connect(cache / "trials.sqlite")) as database:
        (count,) = database.execute("SELECT count(*) FROM trials").fetchone()
    return int(count)


def workers() -> list[int]:
    """Return the processes of this process's workers: children of the raylet that it has started."""
    parents, titles = dict[int, int](), dict[int, str]()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
    mine = {pid for pid, parent in parents.items() if parent == os.getpid()}
    return [pid for pid, title in titles.items() if parents[pid] in mine and title.startswith("ray::Host")]


def test_the_numbers_are_those_of_processes_on_this_machine(cluster, tmp_path):
    prepared, events = prepared_case(tmp_path), []
    here = run(prepared, tmp_path / "here", workers=2)
    there = run(prepared, tmp_path / "there", lambda _, event: events.append(event), make=on_ray(None, 1))
    assert numbers(there) == numbers(here)
    assert "Ray workers" in there.device
    epochs = [event.work for event in events if isinstance(event, EpochFinished)]
    assert 0 < sum(epochs) <= sum(event.work for event in events if hasattr(event, "work"))


def test_a_worker_that_is_killed_loses_nothing_and_its_trial_is_trained_by_another(cluster, tmp_path):
    prepared, heard = prepared_case(tmp_path), Counter[str]()

    def emit(hook: str, event: Any) -> None:
        heard[hook] += 1
        if hook == "ddrank_trial_started" and heard[hook] == 6:
            for worker in workers():
                os.kill(worker, signal.SIGKILL)
                heard["killed"] += 1

    outcome = run(prepared, tmp_path / "there", emit, make=on_ray(None, 2))
    assert numbers(outcome) == numbers(run(prepared, tmp_path / "here", workers=2))
    count, lost = prepared.plan.count(), heard["ddrank_trial_failed"]
    assert 1 <= lost <= heard["killed"] <= 2
    assert (stored(tmp_path / "there"), heard["ddrank_trial_finished"]) == (count, count)
    assert heard["ddrank_trial_started"] == count + lost
    assert f"Of the workers, {heard['killed']} died and were replaced." in outcome.notes


@pytest.mark.slow
def test_workers_that_are_killed_at_random_moments_change_nothing(cluster, tmp_path):
    """Twenty times, and never while a trial is tried again: one that fails three times would be given up."""
    changes = {"recipe": {**RECIPE, "epochs": 600}}
    prepared, heard, draws = prepared_case(tmp_path, **changes), Counter[str](), random.Random(0)
    attempts, over = dict[str, int](), threading.Event()

    def kill() -> None:
        while heard["killed"] < 20 and not over.wait(draws.uniform(0.1, 1.0)):
            if attempts and set(attempts.values()) == {1}:
                for worker in draws.sample(found := workers(), min(1, len(found))):
                    os.kill(worker, signal.SIGKILL)
                    heard["killed"] += 1

    def emit(hook: str, event: Any) -> None:
        heard[hook] += 1
        if hook == "ddrank_trial_started":
            attempts[f"{event.arm} {event.repeat} {event.learning_rate}"] = event.attempt
        elif hook == "ddrank_trial_failed":
            attempts[f"{event.arm} {event.repeat} {event.learning_rate}"] = event.attempt + 1
        elif hook == "ddrank_trial_finished":
            result = event.result
            attempts.pop(f"{result.arm} {result.repeat} {result.learning_rate}", None)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        outcome = run(prepared, tmp_path / "there", emit, make=on_ray(None, 2))
    finally:
        over.set()
        killer.join()
    assert not outcome.failed
    assert numbers(outcome) == numbers(run(prepared, tmp_path / "here", workers=2))
    count = prepared.plan.count()
    assert heard["killed"] >= 12
    assert stored(tmp_path / "there") == heard["ddrank_trial_finished"] == count
    assert heard["ddrank_trial_started"] <= count + heard["killed"]


@pytest.mark.slow
def test_a_component_of_a_file_that_fails_on_workers_fails_its_arm_three_times_and_no_other(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setenv("MY_PROCESS", str(os.getpid()))
    file, events = tmp_path / "my_failing.py", list[tuple[str, Any]]()
    file.write_text(FAILING)
    with using(Choice(files=(file,))):
        prepared = prepared_case(tmp_path, hard={"augmentation": "my/failing"})
        outcome = run(
            prepared,
            tmp_path / "there",
            lambda hook, event: events.append((hook, event)),
            make=on_ray(None, 1),
        )
    errors = [event for hook, event in events if hook == "ddrank_trial_failed"]
    assert {event.arm for event in errors} == {"syn-hard"}
    assert all("ValueError: not here (it uses" in event.error for event in errors)
    given_up = [event for event in errors if event.final]
    assert given_up
    assert {event.attempt for event in given_up} == {3}
    assert {trial.arm for trial in outcome.failed} == {"syn-hard"}
    whole = sum(len(prepared.plan.expected_trials(arm)) for arm in prepared.plan.trained)
    assert stored(tmp_path / "there") == whole - len(
        prepared.plan.expected_trials(next(arm for arm in prepared.plan.trained if arm.name == "syn-hard"))
    )


@pytest.mark.slow
def test_teachers_are_trained_and_asked_on_workers_as_here(cluster, tmp_path, monkeypatch):
    changes = {
        "recipe": {**RECIPE, "labels": "teacher", "loss": {"use": "kl"}},
        "teachers": [{"use": "convnet", "depth": 1, "width": 8}],
        "scores": ["ior"],
    }
    prepared = prepared_case(tmp_path, **changes)
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "teachers here"))
    here = run(prepared, tmp_path / "here", workers=2)
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "teachers there"))
    assert numbers(run(prepared, tmp_path / "there", make=on_ray(None, workers=1))) == numbers(here)


@pytest.mark.slow
def test_a_machine_with_another_version_of_a_plugin_is_not_used(cluster, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(cluster)
    (cluster / "acme_cross.py").write_text(ACME)
    about = cluster / "acme_cross-1.2.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: acme-cross\nVersion: 1.2\n")
    (about.parent / "entry_points.txt").write_text("[ddrank.v1]\nmain = acme_cross\n")
    prepared = prepared_case(tmp_path, recipe={**RECIPE, "loss": "acme/cross"})
    # Workers find what has been installed there meanwhile.
    about.write_text(about.read_text().replace("1.2", "1.3"))
    try:
        with pytest.raises(RunFailed) as refused:
            RayExecutor(prepared, Asked(), lambda event: None)
    finally:
        shutil.rmtree(about.parent)
        del sys.modules["acme_cross"]
    assert re.fullmatch(
        r"--executor ray: machine \S+ is not used: loss 'acme/cross' is of acme-cross 1\.3 here, "
        r"and was chosen from acme-cross 1\.2; install the same acme-cross on both machines",
        str(refused.value),
    )


# -- without a cluster -------------------------------------------------------------------------


def test_rays_client_is_refused_with_what_to_do_instead(tmp_path):
    with pytest.raises(ConfigError, match=r"^--address ray://head:10001: Ray's client is not supported"):
        RayExecutor(prepared_case(tmp_path), Asked(), lambda event: None, address="ray://head:10001")


def test_a_cluster_that_can_hold_no_worker_is_refused_at_once(cluster, tmp_path):
    with pytest.raises(DeviceError) as refused:
        RayExecutor(prepared_case(tmp_path), Asked(), lambda event: None, device="cuda")
    assert "no machine of the cluster has 1 GPU and 1 CPU for a worker" in str(refused.value)


def test_a_runs_tensors_share_the_memory_that_they_are_sent_in(tmp_path):
    prepared = prepared_case(tmp_path)
    sent = pack_run(prepared)
    come = open_run(sent, CPU)
    assert torch.equal(come.real.train_images, prepared.real.train_images)
    assert torch.equal(come.distilled.images, prepared.distilled.images)
    assert come.config == prepared.config
    assert come.plan == prepared.plan
    memory = {buffer.ctypes.data for buffer in sent.buffers}
    assert come.real.train_images.data_ptr() in memory
    # What is sent with each worker beside the data is small.
    assert len(sent.content) < 20_000


def test_a_data_set_that_is_mapped_from_files_is_opened_by_each_machine_itself(tmp_path, monkeypatch):
    prepared = prepared_case(tmp_path)
    monkeypatch.setattr("ddrank_core.engine.executors.ray_bundle.MAX_UNPREPARED_BYTES", 0)
    mapped = attrs.evolve(prepared, real=attrs.evolve(prepared.real, digest="of its files"))
    with pytest.raises(DataError, match="dataset arrays: its files here are others than where the run is"):
        open_run(pack_run(mapped), CPU)
    (tmp_path / "real.npz").unlink()
    with pytest.raises(DataError, match=r"real\.npz"):
        open_run(pack_run(mapped), CPU)


def test_stored_views_are_read_at_the_same_path_and_a_missing_file_is_one_line(tmp_path):
    views = StoredViews(path=tmp_path / "views.safetensors", epochs=1, count=6, num_classes=3, batch_size=2)
    sent = pack_run(attrs.evolve(prepared_case(tmp_path), views=views))
    with pytest.raises(DataError, match=r"views\.safetensors: no such file here; workers read stored views"):
        open_run(sent, CPU)
    views.path.touch()
    assert open_run(sent, CPU).views.path == views.path


def test_a_worker_chooses_among_the_same_plugins_and_has_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setenv("DDRANK_PLUGINS", "")
    file = tmp_path / "my_failing.py"
    file.write_text(FAILING)
    with using(Choice(files=(file,))):
        there = pickle.loads(pickle.dumps(surroundings()))
    # Another machine has neither the file nor the variable.
    file.unlink()
    monkeypatch.delenv("DDRANK_PLUGINS")
    with settle(there):
        entry = default_registry().find("augmentation", "my/failing")
        assert os.environ["DDRANK_PLUGINS"] == ""
    assert entry.version == hashlib.sha256(FAILING.encode()).hexdigest()[:12]


def test_ray_is_imported_by_no_run_that_does_not_ask_for_it(tmp_path):
    config = write_case(tmp_path, scores=["ior"])
    script = (
        "import sys; from ddrank_core.cli.main import main; "
        f"code = main(['run', {str(config)!r}, '--out', {str(tmp_path / 'out')!r}, '--workers', '1']); "
        "assert code == 0, code; assert 'ray' not in sys.modules"
    )
    environment = {**os.environ, "DDRANK_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, capture_output=True)
