"""`ddrank convert`: a YAML config of ddranking as one of ours, with comments."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ddrank_core.compat.config import read_old
from ddrank_core.compat.findings import Finding, Translation
from ddrank_core.compat.recipes import PLACES
from ddrank_core.compat.translate import translate
from ddrank_core.registry import Registry

_WIDTH = 100


def convert(old: Path, new_folder: Path, registry: Registry) -> tuple[str, Translation]:
    """Return an old config in the words of ours, as YAML, and what became of each of its keys.

    Old paths are relative to the folder that ddranking is started in, ours to the config's own folder;
    they are rewritten so that both mean the same, seen from the current folder.

    Raises:
        ConfigError: one line that names the file and the key.
    """
    found = translate(read_old(old), str(old), registry)
    return _text(found, old.name, _rebased(found.values, new_folder)), found


def report(found: Translation) -> list[tuple[str, str, str]]:
    """Return for each key its name, what became of it, and why; what needs a look comes first."""
    order = ("wrong", "left out", "no effect", "kept")
    listed = sorted(found.findings, key=lambda finding: order.index(finding.verdict))
    return [(finding.key, finding.verdict, finding.text) for finding in listed]


def _rebased(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values with paths relative to `folder`, and a place for the distilled set."""
    made = {field: dict(item) if isinstance(item, Mapping) else item for field, item in values.items()}
    made["distilled"] = {"path": f"distilled/{values['name']}.safetensors", **made["distilled"]}
    for key in PLACES:
        if key in made["dataset"]:
            made["dataset"][key] = _relative(made["dataset"][key], folder)
    made["teachers"] = [
        {
            **teacher,
            **({"checkpoint": _relative(teacher["checkpoint"], folder)} if "checkpoint" in teacher else {}),
        }
        for teacher in values.get("teachers", ())
    ]
    return {field: item for field, item in made.items() if item not in ([], {})}


def _relative(path: str, folder: Path) -> str:
    if os.path.isabs(path):
        return path
    return Path(os.path.relpath(path, folder)).as_posix()


def _text(found: Translation, source: str, values: Mapping[str, Any]) -> str:
    kinds = {
        "hard": "hard labels",
        "soft": "soft labels",
        "augmentation": "augmentation",
        "general": "accuracy",
    }
    head = (
        f"{source}, a config of ddranking {found.release} ({kinds[found.kind]}), by ddrank convert. "
        "Make the distilled set with ddrank import, then try ddrank check."
    )
    lines = [*_comment(head), ""]
    for field, item in values.items():
        told = [f for f in found.findings if f.place == field and f.verdict != "kept"]
        lines += [line for finding in told for line in _comment(_remark(finding))]
        if field == "protocol":
            lines += _comment(
                "use: ddranking-0.2 would choose rate and epoch on the test set, as ddranking does"
            )
        lines += _dumped(field, item)
    lost = [f for f in found.findings if f.place is None and f.verdict != "kept"]
    if lost:
        lines += ["", *_comment("Keys of the old config that have no counterpart here:")]
        lines += [line for finding in lost for line in _comment(_remark(finding))]
    return "\n".join(lines) + "\n"


def _dumped(field: str, item: Any) -> list[str]:
    # Leaves in one line, as people write them; a lone value would otherwise get braces.
    flow = None if isinstance(item, (dict, list)) else False
    text: str = yaml.safe_dump(
        {field: item}, sort_keys=False, default_flow_style=flow, width=_WIDTH, allow_unicode=True
    )
    return text.splitlines()


def _remark(finding: Finding) -> str:
    return f"{finding.key} ({finding.verdict}): {finding.text}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
