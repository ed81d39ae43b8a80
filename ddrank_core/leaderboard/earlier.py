"""Whether the `check.json` of a submission is what its check finds: a board shows what that file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddrank_core.errors import DDRankError
from ddrank_core.leaderboard.findings import Findings, listed
from ddrank_core.leaderboard.measured import read_json, take
from ddrank_core.leaderboard.types import Finding

CHECK = "check.json"


def compared(now: Mapping[str, Any], path: Path) -> list[Finding]:
    """Return what is to be said of the report at `path`, beside a report of the same files made now."""
    findings = Findings()
    if not path.exists():
        return findings.all
    try:
        then = read_json(path)
        files, data = take(then, "checked.files", dict, str(path)), then["checked"].get("real data")
        said, found = _grave(then, str(path)), _grave(now, str(path))
    except DDRankError as error:
        findings.note("warning", CHECK, f"{error}; write it again with --write")
        return findings.all
    checked = now["checked"]
    names = sorted(files.keys() | checked["files"].keys())
    if other := [name for name in names if files.get(name) != checked["files"].get(name)]:
        findings.note(
            "warning", CHECK, f"{path}: is of other files: {listed(other)}; write it again with --write"
        )
    elif checked["real data"] is None and data is not None:
        findings.note(
            "info", CHECK, f"{path}: was made beside the real data, which are not here to compare it"
        )
    elif checked["real data"] != data:
        findings.note(
            "warning", CHECK, f"{path}: was made beside other real data, or none; write it again with --write"
        )
    elif missing := found - said:
        _, check, text = min(missing)
        findings.note("warning", CHECK, f"{path}: does not say what is found now: {check}: {text[:200]}")
    elif said - found:
        _, check, text = min(said - found)
        findings.note("warning", CHECK, f"{path}: says what is not found now: {check}: {text[:200]}")
    return findings.all


def _grave(report: Mapping[str, Any], where: str) -> set[tuple[str, str, str]]:
    """Return the errors and warnings of a report."""
    found = set()
    for index, item in enumerate(take(report, "findings", list, where)):
        field = f"{where}: findings[{index}]"
        level, check, text = (take(item, name, str, field) for name in ("level", "check", "text"))
        if level != "info":
            found.add((level, check, text))
    return found
