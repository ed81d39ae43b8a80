"""Measure what the driver and the store of a run carry: 10,000 trials that take no time, through Ray.

    python benchmarks/scale.py
    python benchmarks/scale.py --workers here 8 --cohorts 25

Writes scale.json and scale.md into results/DEVICE. Nothing is trained: a worker returns 10,000 predictions
for each trial at once. All else is what a run does: its plan of 10,000 trials (50 repeats of 100 learning
rates in two arms), digests, claims, scheduler, Ray's actors and its executor, and a store with a durable
commit for every task. So the trials per second are those that a cluster may finish, with any number of GPUs.

Every row is a process of its own, and a cluster of its own on this machine; its clock starts when all workers
are up. `here` is the same without Ray: the scheduler and the store alone, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import common
import numpy as np
import torch
import yaml

from ddrank_core.asked import Asked
from ddrank_core.config import load_run
from ddrank_core.data.distilled import save
from ddrank_core.engine.executors.contract import Finished, Task
from ddrank_core.engine.executors.local import LocalExecutor
from ddrank_core.engine.executors.ray import RayExecutor
from ddrank_core.engine.plan import Trial
from ddrank_core.engine.prepare import prepare
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.run import execute
from ddrank_core.engine.trial import Done, OnEpoch, identity
from ddrank_core.engine.worker import Worker
from ddrank_core.registry import default_registry
from ddrank_core.results import TrialResult
from ddrank_core.store import TrialStore
from ddrank_core.types import DistilledSet, ImageSpace

CLASSES, SIDE, TEST = 10, 8, 10_000
REPEATS, RATES, ARMS = 50, 100, 2
TRIALS = REPEATS * RATES * ARMS
HERE = "here"


class Instant(Worker):
    """A worker that trains nothing; what it returns depends on the trial alone, as it must."""

    def most(self, arm: str, trial: Trial) -> int:
        """Return how many trials were asked for."""
        return self.asked.cohort or 1

    def train(self, task: Task, on_epoch: OnEpoch) -> Finished:
        """Return 10,000 predictions of each trial."""
        return Finished(task=task, dones=tuple(map(self._done, task.trials)))

    def _done(self, trial: Trial) -> Done:
        result = TrialResult(
            **identity(trial),
            validation_accuracy=trial.learning_rate,
            accuracy=None,
            epoch=1,
            diverged=False,
            seconds=0.0,
            how="not trained",
        )
        return Done(trial, result, torch.from_numpy(predictions(trial).astype("int64")))


class Here(LocalExecutor):
    """The same worker in this process: what is left without Ray."""

    def __init__(self, prepared: Prepared, asked: Asked, on_epoch: OnEpoch) -> None:
        super().__init__(prepared, asked, on_epoch)
        self._worker = Instant(prepared, asked)


class There(RayExecutor):
    """Begins when all of its workers are up, and says when that was."""

    began = 0.0

    def begin(self, work: float) -> None:
        """Wait for every worker."""
        super().begin(work)
        while len(self._workers.idle()) < len(self._workers.members):
            self._workers.look(1.0)
        There.began = time.perf_counter()


def predictions(trial: Trial) -> np.ndarray:
    """Return what a trial predicts, as hard to compress as ten equally frequent classes are."""
    draws = np.random.default_rng([trial.seed, int(trial.learning_rate * 1e6), *trial.arm.encode()])
    return draws.integers(0, CLASSES, TEST).astype("<u2")


# -- one row -----------------------------------------------------------------------------------


def measure(workers: str, cohort: int, folder: Path) -> dict[str, Any]:
    """Return what a run of all trials took; raise if one was lost, doubled or changed."""
    torch.set_num_threads(1)
    prepared, heard = case(folder), Counter[str]()
    before = _memory()
    began = 0.0

    def make(prepared: Prepared, asked: Asked, on_epoch: OnEpoch) -> Any:
        if workers == HERE:
            return Here(prepared, asked, on_epoch)
        connect(int(workers))
        return There(prepared, asked, on_epoch, workers=int(workers), make=Instant)

    def emit(hook: str, event: Any) -> None:
        nonlocal began
        heard[hook] += 1
        if hook == "ddrank_trial_started" and not began:
            began = time.perf_counter()

    cache = folder / "cache"
    with closing(TrialStore(cache)) as store:
        outcome = execute(prepared, store, emit, cohort=cohort, compile="off", make=make)
        seconds, peak = time.perf_counter() - max(began, There.began), _memory()
    checked(outcome.trials, heard, cache)
    return {
        "workers": workers,
        "cohort": cohort,
        "trials_per_second": TRIALS / seconds,
        "driver_peak_mib": peak,
        "driver_before_mib": before,
        "store_bytes_per_trial": (cache / "trials.sqlite").stat().st_size / TRIALS,
        # Ray changes nothing about it.
        "store_alone_per_second": store_alone(cache, cohort, folder / "copy") if workers == HERE else None,
    }


def checked(trials: Sequence[TrialResult], heard: Counter[str], cache: Path) -> None:
    """Hold every trial to have been trained once, stored once, and stored as it was."""
    assert len(set(trials)) == len(trials) == TRIALS
    assert heard["ddrank_trial_started"] == heard["ddrank_trial_finished"] == TRIALS
    assert heard["ddrank_trial_failed"] == 0
    with closing(TrialStore(cache)) as store:
        digests = digests_of(cache)
        assert len(digests) == TRIALS
        for digest in digests:
            stored = store.get(digest)
            assert stored is not None
            assert stored.about is not None
            about = stored.about
            trial = Trial(**{field: getattr(about, field) for field in identity_fields()})
            assert stored.predictions == predictions(trial).tobytes()


def store_alone(cache: Path, cohort: int, folder: Path) -> float:
    """Return how many trials per second a store takes, as many in a transaction as there were in a task."""
    with closing(TrialStore(cache)) as store:
        found = {digest: store.get(digest) for digest in digests_of(cache)}
    rows = [(digest, one) for digest, one in found.items() if one is not None]
    with closing(TrialStore(folder)) as copy:
        clock = time.perf_counter()
        for start in range(0, len(rows), cohort):
            group = dict(rows[start : start + cohort])
            copy.claim(group)
            copy.put(group)
        return len(rows) / (time.perf_counter() - clock)


def digests_of(cache: Path) -> list[str]:
    import sqlite3

    with closing(sqlite3.connect(cache / "trials.sqlite")) as database:
        return [digest for (digest,) in database.execute("SELECT digest FROM trials")]


def identity_fields() -> list[str]:
    return [field.name for field in attrs.fields(Trial)]


def connect(workers: int) -> None:
    """Start a cluster of this machine that believes in so many cores."""
    import logging

    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        "local",
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        object_store_memory=512 << 20,
    )


def case(folder: Path) -> Prepared:
    """Return a run of 10,000 trials with 10,000 test images, as small as they can be."""
    draws = np.random.default_rng(0)

    def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % CLASSES
        return draws.integers(0, 256, (count, SIDE, SIDE)).astype("uint8"), labels.astype("int64")

    (x_train, y_train), (x_test, y_test) = pictures(40 * CLASSES), pictures(TEST)
    np.savez(folder / "real.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    distilled = DistilledSet(
        images=torch.rand(CLASSES, 1, SIDE, SIDE),
        labels=torch.arange(CLASSES),
        space=ImageSpace(kind="unit"),
        num_classes=CLASSES,
    )
    save(distilled, folder / "distilled.safetensors")
    config = {
        "name": "scale",
        "dataset": {"use": "arrays", "path": "real.npz"},
        "distilled": {"path": "distilled.safetensors"},
        "student": {"use": "convnet", "depth": 1, "width": 4},
        "recipe": {"labels": "hard", "loss": "ce", "optimizer": "sgd", "schedule": "constant", "epochs": 1},
        "scores": ["ior"],
        "protocol": {
            "use": "strict",
            "repeats": REPEATS,
            "learning_rates": [round(0.001 * (index + 1), 6) for index in range(RATES)],
            "validation": 0.2,
        },
    }
    path = folder / "scale.yaml"
    path.write_text(yaml.safe_dump(config))
    registry = default_registry()
    return prepare(load_run(path, registry), str(path), registry, torch.device("cpu"))


def _memory() -> float:
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- all rows ----------------------------------------------------------------------------------


def main() -> None:
    args = parse()
    if args.row:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(args.row[0], int(args.row[1]), Path(folder))))
        return
    about, rows = common.machine("cpu"), list[dict[str, Any]]()
    for cohort in args.cohorts:
        for workers in args.workers:
            rows.append(row_of(workers, cohort))
            write(about, rows, args.output or common.results_folder("cpu"))


def write(about: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> None:
    """Write the rows that there are."""
    content = {
        "what": "scale",
        "machine": about,
        "versions": common.versions(),
        "settings": {"trials": TRIALS, "predictions": TEST, "classes": CLASSES},
        "rows": rows,
    }
    common.write_json(folder / "scale.json", content)
    table = common.markdown([HEAD, *map(row_text, rows)])
    (folder / "scale.md").write_text(f"{common.heading(about, common.versions())}\n\n{table}\n")


def row_of(workers: str, cohort: int) -> dict[str, Any]:
    """Measure a row in a process of its own."""
    command = [sys.executable, __file__, "--row", workers, str(cohort)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    # Ray prints there too, of more processes than cores.
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    found: dict[str, Any] = json.loads(line)
    print(row_text(found), file=sys.stderr)
    return found


HEAD = (
    "workers",
    "trials per task",
    "trials/s",
    "store alone, trials/s",
    "driver's peak, MiB",
    "before, MiB",
    "store, bytes/trial",
)


def row_text(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(row["workers"]),
        str(row["cohort"]),
        f"{row['trials_per_second']:,.0f}",
        "" if row["store_alone_per_second"] is None else f"{row['store_alone_per_second']:,.0f}",
        f"{row['driver_peak_mib']:,.0f}",
        f"{row['driver_before_mib']:,.0f}",
        f"{row['store_bytes_per_trial']:,.0f}",
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", nargs="+", default=["8", "2", HERE, "32"], help="of Ray, or 'here'")
    parser.add_argument("--cohorts", nargs="+", type=int, default=[25, 1], help="trials per task")
    parser.add_argument("--output", type=Path, help="folder  [default: results/DEVICE]")
    parser.add_argument("--row", nargs=2, metavar=("WORKERS", "COHORT"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
