"""Entries, records and submissions of a board, made up for tests of the ranking."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ddrank_core.cli import main as launcher
from ddrank_core.config import Weights
from ddrank_core.engine.score import score_all, summarise_arm
from ddrank_core.leaderboard.types import DistilledFile, Entry, Measured, Submission
from ddrank_core.report.record import arm_record, score_record

# -- tables ------------------------------------------------------------------------------------


def submission(method: str, dataset: str = "digits", ipc: int = 1, **more: Any) -> Submission:
    values: dict[str, Any] = {
        "folder": Path("submissions") / method / f"{dataset}-ipc{ipc}",
        "slug": f"{method}/{dataset}-ipc{ipc}",
        "method": method,
        "authors": ("A. Author",),
        "licence": "MIT",
        "dataset": dataset,
        "ipc": ipc,
        "saw": ("train images",),
        "distilled": DistilledFile(path=Path("set.safetensors"), sha256="ab" * 32, bytes=10),
        "recipe": Path("run.yaml"),
    }
    return Submission(**{**values, **more})


def run_of(arms: dict[str, Any], seeds: tuple[int, ...] | None = None) -> Measured:
    repeats = max(len(values) for values in arms.values())
    return Measured(
        arms={name: tuple(values) for name, values in arms.items()},
        learning_rates={},
        full_given=False,
        scores={},
        device="cpu",
        protocol="strict 1",
        ddrank="0.1.0",
        seeds=tuple(range(repeats)) if seeds is None else seeds,
    )


def entry(method: str, *, ars: Any = None, lrs: Any = None, **more: Any) -> Entry:
    """Return an entry whose ARS(0) exponents are `ars`, or whose (IOR, HLR) pairs are `lrs`."""
    arms: dict[str, Any] = {}
    if ars is not None:
        zero = [0.0] * len(ars)
        arms = {"syn-aug": zero, "rdm-aug": zero, "syn-naug": ars, "rdm-naug": zero}
    if lrs is not None:
        iors, hlrs = zip(*lrs, strict=True)
        half = [0.5] * len(lrs)
        hard = [0.9 - hlr for hlr in hlrs]
        arms |= {"full-hard": [0.9] * len(lrs), "syn-hard": hard, "rdm-any": half}
        arms |= {"syn-any": [0.5 + ior for ior in iors]}
    values: dict[str, Any] = {
        "submission": submission(method),
        "track": "own",
        "student": "convnet depth=3",
        "labels": "hard",
        "measured": run_of(arms),
        "controls": {},
        "image_bytes": 1000,
        "label_bytes": 24,
        "teacher_bytes": 0,
        "findings": (),
        "command": "ddrank ...",
    }
    return Entry(**{**values, **more})


# -- folders -----------------------------------------------------------------------------------

CONFIG: dict[str, Any] = {
    "name": "toy",
    "dataset": {"use": "digits"},
    "distilled": {"path": "set.safetensors", "views": None, "ipc": 1},
    "student": {"use": "convnet", "depth": 2},
    "teachers": [],
    "recipe": {
        "labels": {"use": "hard"},
        "loss": {"use": "ce"},
        "augmentation": [{"use": "dsa", "mode": "single"}],
        "epochs": 10,
    },
    "full_data": {"accuracy": None, "source": None},
    "whitening": None,
    "protocol": {"use": "strict", "repeats": 3},
    "precision": "fp32",
    "scores": ["lrs"],
    "weights": {"lrs": 0.5, "ars": 0.5},
}
ARMS: dict[str, list[float | None]] = {
    "full-hard": [0.95, 0.95, 0.96],
    "syn-hard": [0.8, 0.82, 0.81],
    "syn-any": [0.8, 0.82, 0.84],
    "rdm-any": [0.7, 0.75, 0.71],
}


def record(shift: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Return a record with what a board needs; `shift` is added to the accuracies of syn-any."""
    values = {
        "schema_version": 1,
        "config": config(),
        "versions": {"ddrank": "0.1.0"},
        "data": {
            "dataset": {
                "train_sha256": "1" * 64,
                "test_sha256": "2" * 64,
                "classes": [str(digit) for digit in range(10)],
                "image_shape": [1, 8, 8],
                "test_images": 10_000,
            },
            "distilled": {"sha256": "3" * 64, "images": 10, "soft_labels": None},
        },
        "teachers": [],
        "device": "cpu",
        **changes,
    }
    return measuring({**ARMS, "syn-any": [value + shift for value in (0.8, 0.82, 0.84)]}, values)


def measuring(arms: dict[str, Any], values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a record of these accuracies, one trial each, with the scores that follow from them."""
    values = record() if values is None else values
    repeats = len(arms["syn-any"])
    values["config"]["protocol"]["repeats"] = repeats
    found = {name: summarise_arm(name, accuracies, [0.01] * repeats) for name, accuracies in arms.items()}
    rules: Any = SimpleNamespace(scores=["lrs"], weights=Weights())
    return {
        **values,
        "protocol": {"name": "strict", "version": "1", "repeats": repeats},
        "trials": [
            trial(name, repeat, accuracy)
            for name, accuracies in arms.items()
            for repeat, accuracy in enumerate(accuracies)
        ],
        "arms": {name: arm_record(arm) for name, arm in found.items()},
        "scores": {name: score_record(score) for name, score in score_all(rules, found).items()},
    }


def trial(arm: str, repeat: int, accuracy: float | None) -> dict[str, Any]:
    done = {"arm": arm, "phase": "final", "repeat": repeat, "learning_rate": 0.01, "seed": 100 + repeat}
    return {**done, "accuracy": accuracy, "epoch": 10, "diverged": accuracy is None}


def config(**changes: Any) -> dict[str, Any]:
    """Return the toy config with fields changed: `recipe__labels` is `recipe.labels`."""
    values: dict[str, Any] = json.loads(json.dumps(CONFIG))
    for name, value in changes.items():
        field, _, inner = name.partition("__")
        if inner:
            values[field][inner] = value
        else:
            values[field] = value
    return values


def submit(board: Path, folder_name: str, records: dict[str, Any], **about: Any) -> Path:
    """Write a submission with records by place, `own/method` for one; return its folder."""
    folder = board / folder_name / "digits-ipc1"
    folder.mkdir(parents=True)
    raw = b"stands for a distilled set"
    (folder / "set.safetensors").write_bytes(raw)
    (folder / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    values = {
        "method": folder_name,
        "authors": ["A. Author"],
        "licence": "MIT",
        "dataset": "digits",
        "ipc": 1,
        "saw": ["train images", "train labels"],
        "distilled": {
            "path": "set.safetensors",
            "sha256": hashlib.sha256(raw).hexdigest(),
            "bytes": len(raw),
        },
        "recipe": "run.yaml",
    }
    (folder / "submission.yaml").write_text(yaml.safe_dump({**values, **about}))
    for place, content in records.items():
        path = folder / "results" / place / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def with_arm(name: str, accuracies: list[float | None]) -> dict[str, Any]:
    return measuring({**ARMS, name: accuracies})


def ranked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = launcher.main(["rank", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err
