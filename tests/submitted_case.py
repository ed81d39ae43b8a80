"""A good submission of the tiny evaluation, with its record: tests change one thing in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tiny_case import CONFIG, run_case, write_case

from ddrank_core.cli.evaluation import report_of
from ddrank_core.config import load_run
from ddrank_core.data.distilled import digest
from ddrank_core.engine.prepare import prepare
from ddrank_core.leaderboard.evaluate import portable
from ddrank_core.registry import default_registry
from ddrank_core.report.record import build_record

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
    import torch

    folder = root / PLACE
    folder.mkdir(parents=True)
    write_case(root, **changes)
    (root / "case.yaml").unlink()
    (root / DISTILLED).rename(folder / DISTILLED)
    recipe = {**CONFIG, "dataset": {"use": "arrays", "path": "../../../real.npz"}, **changes}
    (folder / "run.yaml").write_text(yaml.safe_dump(recipe))
    declare(folder)
    registry, path = default_registry(), folder / "run.yaml"
    config = load_run(path, registry)
    prepared = prepare(config, str(path), registry, torch.device("cpu"))
    outcome = run_case(prepared, root / "cache")
    record = portable(build_record(report_of(outcome, config)), config, folder)
    (folder / RECORD).parent.mkdir(parents=True)
    (folder / RECORD).write_text(json.dumps(record, indent=1))
    return folder


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
