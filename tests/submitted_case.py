"""A good submission of the tiny evaluation, with its record: tests change one thing in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_case import CONFIG, run_case, write_case

from ddrank_core.cli.evaluation import report_of
from ddrank_core.data.distilled import digest
from ddrank_core.leaderboard.evaluate import Evaluation
from ddrank_core.leaderboard.submission import load
from ddrank_core.registry import default_registry

PLACE = Path("submissions/stripes/arrays-ipc2")
DISTILLED, RECORD = "distilled.safetensors", "results/own/method/record.json"
ABOUT: dict[str, Any] = {
    "method": "Stripes",
    "authors": ["A. Author", "B. Author"],
    "paper": "https://example.org/paper",
    "licence": "MIT",
    "dataset": "arrays",
    "ipc": 2,
    "saw": ["train images", "train labels"],
    "cost": {"gpu_hours": 0.5, "device": "a CPU"},
    "claimed": [{"accuracy": 0.9, "source": "Author 2026, table 1", "student": "ConvNet-1"}],
    "recipe": "run.yaml",
}


def write_submission(root: Path, **changes: Any) -> Path:
    """Write the real data into `root` and a submission below; return its folder."""

    folder = root / PLACE
    folder.mkdir(parents=True)
    write_case(root, **changes)
    (root / "case.yaml").unlink()
    (root / DISTILLED).rename(folder / DISTILLED)
    recipe = {**CONFIG, "dataset": {"use": "arrays", "path": "../../../real.npz"}, **changes}
    (folder / "run.yaml").write_text(yaml.safe_dump(recipe))
    declare(folder)
    evaluate(folder, root / "cache")
    return folder


def evaluate(folder: Path, cache: Path) -> None:
    """Leave the records of the method and its controls on its own recipe."""
    import torch

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DDRANK_CACHE", str(cache))
        evaluation = Evaluation(load(folder), ["own"], default_registry(), torch.device("cpu"))
        for contestant in evaluation.contestants:
            prepared = evaluation.prepare(contestant)
            outcome = run_case(prepared, cache)
            evaluation.write(report_of(outcome, prepared.config), contestant)


def declare(folder: Path, **changes: Any) -> None:
    """Write submission.yaml with the digest and size of the distilled set that is there."""
    path = folder / DISTILLED
    declared = {"path": DISTILLED, "sha256": digest(path), "bytes": path.stat().st_size}
    (folder / "submission.yaml").write_text(yaml.safe_dump({**ABOUT, "distilled": declared, **changes}))


def copied(source: Path, root: Path) -> Path:
    """Return the submission in a copy of all that it is tested with."""
    shutil.copytree(source, root, dirs_exist_ok=True)
    return root / PLACE


def edit_record(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a submission's record in place."""
    record = json.loads((folder / RECORD).read_text())
    change(record)
    (folder / RECORD).write_text(json.dumps(record))


def edit_recipe(folder: Path, **changes: Any) -> None:
    """Change top-level fields of a submission's recipe."""
    recipe = yaml.safe_load((folder / "run.yaml").read_text())
    (folder / "run.yaml").write_text(yaml.safe_dump({**recipe, **changes}))
