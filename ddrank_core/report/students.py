"""One distilled set on several students: each has a run folder of its own, and these compare them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from ddrank_core.config import RunConfig
from ddrank_core.report.arms import SCORES
from ddrank_core.report.console import encodable, printable, table
from ddrank_core.report.folder import RECORD, staging, sync, worded
from ddrank_core.report.record import SCHEMA_VERSION, RunReport, arm_record, score_record, strict_json
from ddrank_core.report.student_figure import label, students_png
from ddrank_core.structure import Chosen, plain

FILES = ("students.csv", "students.png", RECORD)
"""What the folder of the whole run holds beside one folder per student; the record is put there last."""

_SHOWN_ARMS = ("full-hard", "syn-hard", "syn-any", "rdm-any")


def folder_name(index: int, student: Chosen[Any]) -> str:
    """Return the name of a student's run folder: its place from 1, and its name."""
    return f"{index + 1}-{re.sub('[^A-Za-z0-9._-]+', '-', student.use)}"


def students_summary(name: str, reports: Sequence[RunReport], encoding: str = "utf-8") -> str:
    """Return the scores of all students as a table that ends in a newline."""
    asked = reports[0].config.scores
    arms = [name for name in _SHOWN_ARMS if any(name in report.arms for report in reports)]
    header = ("student", *(f"{SCORES[name].title} ({SCORES[name].better})" for name in asked), *arms, "")
    rows = [
        (
            printable(label(report.config.student)),
            *(_score_cell(report, name) for name in asked),
            *(_arm_cell(report, name) for name in arms),
            "",
        )
        for report in reports
    ]
    title = f"{printable(name)}: {len(reports)} students, mean ± 95% CI; arms mean ± std"
    return encodable("\n".join([title, "", *table(header, rows)]) + "\n", encoding)


def _score_cell(report: RunReport, name: str) -> str:
    score, words = report.scores[name], SCORES[name]
    if score.mean is None:
        return "undefined"
    spread = "" if score.ci95 is None else f" ± {words.number(score.ci95)}"
    return f"{words.number(score.mean)}{spread}"


def _arm_cell(report: RunReport, name: str) -> str:
    arm = report.arms.get(name)
    if arm is None or arm.mean is None:
        return "-"
    spread = "" if arm.std is None else f" ± {100 * arm.std:.2f}"
    return f"{100 * arm.mean:.2f}{spread} %"


def students_csv(reports: Sequence[RunReport]) -> str:
    """Return one line per student and score, as fractions."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("student", "parameters", "score", "mean", "std", "ci95", "n", "reason"))
    for report in reports:
        student = report.config.student
        parameters = json.dumps(plain(student.component), sort_keys=True)
        for name in report.config.scores:
            score = report.scores[name]
            writer.writerow(
                (student.use, parameters, name, score.mean, score.std, score.ci95, score.n, score.reason)
            )
    return text.getvalue()


def write_students(config: RunConfig, reports: Sequence[RunReport], folder: Path) -> None:
    """Write the table, the picture and the record of all students; their own folders are there already.

    Raises:
        RunFailed: one line that names the folder and what stopped the writing.
    """
    with worded(folder), staging(folder) as unfinished:
        (unfinished / "students.csv").write_bytes(students_csv(reports).encode(errors="backslashreplace"))
        students_png(reports, unfinished / "students.png")
        (unfinished / RECORD).write_bytes(_record(config, reports))
        for name in FILES:
            sync(unfinished / name)
        (folder / RECORD).unlink(missing_ok=True)
        for name in FILES:
            os.replace(unfinished / name, folder / name)


def _record(config: RunConfig, reports: Sequence[RunReport]) -> bytes:
    record = {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "students": [
            {
                "student": plain(report.config.student),
                "record": f"{folder_name(index, report.config.student)}/{RECORD}",
                "scores": {name: score_record(report.scores[name]) for name in config.scores},
                "arms": {name: arm_record(arm) for name, arm in report.arms.items()},
            }
            for index, report in enumerate(reports)
        ],
        "config": config.resolved(),
        "versions": reports[0].versions,
        "device": reports[0].device,
        "started": reports[0].started,
        "seconds": sum(report.seconds for report in reports),
    }
    text = json.dumps(strict_json(record), indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode(errors="backslashreplace")


def as_single(config: RunConfig, index: int) -> RunConfig:
    """Return the config of one student, under the run's name and the student's."""
    single = config.each_student()[index]
    name = f"{config.name}-{folder_name(index, single.student)}"
    return attrs.evolve(single, name=name[:100])  # type: ignore[misc]  # mypy loses attrs here
