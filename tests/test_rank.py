"""Ranking submissions: ties, rank intervals, stability, and the folders that rows are from."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import yaml
from scipy import stats

from ddrank_core.cli import main as launcher
from ddrank_core.leaderboard.entries import load_board
from ddrank_core.leaderboard.rank import agreement, agreements, leaders, parts, sample, tables, undefined
from ddrank_core.leaderboard.types import DistilledFile, Entry, Measured, Submission

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


def test_the_score_of_a_repeat_is_that_of_the_run_itself():
    # IOR = HLR: the exponent is 0 at w = 0.5, and (1 - e^-1) / (e - e^-1) = 0.26894.
    found = sample(entry("a", lrs=[(0.2, 0.2), (0.1, 0.3)]).measured, "lrs", 0.5)
    expected = (math.exp(-0.1) - math.exp(-1)) / (math.e - math.exp(-1))
    assert found.values == pytest.approx((0.2689414, expected))
    augmented = {"syn-aug": [0.7], "rdm-aug": [0.6], "syn-naug": [0.5], "rdm-naug": [0.2]}
    expected = (math.exp(0.25 * 0.1 + 0.75 * 0.3) - math.exp(-1)) / (math.e - math.exp(-1))
    assert sample(run_of(augmented), "ars", 0.25).values == pytest.approx((expected,))
    assert parts(run_of(augmented), "ars") == [pytest.approx((0.1, 0.3))]


def test_a_row_is_tied_with_the_leader_of_its_group_until_one_differs():
    p = [[1, 0.5, 0.01, 0.2], [0.5, 1, 0.3, 0.4], [0.01, 0.3, 1, 0.6], [0.2, 0.4, 0.6, 1]]
    # The last does not differ from the first either, and yet belongs to the group above it.
    assert leaders(p) == [0, 0, 2, 2]
    assert leaders([]) == []


def test_a_table_by_hand():
    wave, other_wave = np.array([0.01, -0.01, 0.02, -0.02, 0.0]), np.array([0.02, 0.0, -0.03, 0.0, 0.01])
    entries = [
        entry("third", ars=0.1 + wave + 0.001 * other_wave),
        entry("first", ars=0.4 + wave),
        entry("second", ars=0.39 + wave + other_wave),
    ]
    (table,) = tables(entries, "ars", 0.0)
    rows = {row.entry.submission.method: row for row in table.rows}
    assert list(rows) == ["first", "second", "third"]
    assert [(row.place, row.rank, row.tied) for row in table.rows] == [
        (1, 1, True),
        (2, 1, True),
        (3, 3, False),
    ]
    assert [(row.lowest, row.highest) for row in table.rows] == [(1, 2), (1, 2), (3, 3)]
    scores = [row.sample.values for row in table.rows]
    raw = [stats.ttest_rel(scores[i], scores[j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))]
    # 0-2 has the smallest p, 1-2 the next, 0-1 the largest.
    assert raw[1] < raw[2] < raw[0]
    assert table.p_values[0][2] == pytest.approx(3 * raw[1])
    assert table.p_values[1][2] == table.p_values[2][1] == pytest.approx(2 * raw[2])
    assert table.p_values[0][1] == pytest.approx(raw[0])
    first = rows["first"]
    half = stats.t.ppf(0.975, 4) * np.std(first.sample.values, ddof=1) / math.sqrt(5)
    assert (first.mean, first.ci95) == pytest.approx((np.mean(first.sample.values), half))


def test_equal_methods_share_the_first_rank_and_can_have_any():
    (table,) = tables([entry(name, ars=[0.1, 0.2, 0.3]) for name in "cab"], "ars", 0.0)
    assert [(row.entry.submission.method, row.rank) for row in table.rows] == [("a", 1), ("b", 1), ("c", 1)]
    assert {(row.lowest, row.highest) for row in table.rows} == {(1, 3)}


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
def test_all_rank_intervals_of_a_table_hold_together(n: int):
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(500):
        scores = rng.normal(size=(n, 6)) + rng.normal(size=(n, 1)) - 0.3 * np.arange(6)
        entries = [entry(f"m{i}", ars=column) for i, column in enumerate((0.3 + 0.01 * scores).T.tolist())]
        (table,) = tables(entries, "ars", 0.0)
        true = {row.entry.submission.method: 1 + int(row.entry.submission.method[1:]) for row in table.rows}
        held += all(row.lowest <= true[row.entry.submission.method] <= row.highest for row in table.rows)
    assert held / 500 > 0.95 - 0.03


def test_only_what_can_be_compared_shares_a_table():
    own = entry("a", lrs=[(0.1, 0.1)])
    other_protocol = attrs.evolve(own.measured, protocol="ddranking-0.2 1")
    entries = [
        own,
        attrs.evolve(own, track="fixed"),
        attrs.evolve(own, student="mlp"),
        attrs.evolve(own, submission=submission("a", ipc=10)),
        attrs.evolve(own, submission=submission("a", "mnist")),
        attrs.evolve(own, measured=other_protocol),
    ]
    found = tables(entries)
    assert len(found) == 6
    assert all(len(table.rows) == 1 for table in found)
    # Track and student each differ alone from the first; no other pair does.
    assert [(one.one.track, one.other.track, one.common) for one in agreements(found)] == [
        ("fixed", "own", 1),
        ("own", "own", 1),
    ]


def test_a_run_without_the_score_is_listed_with_its_reason():
    good = entry("good", lrs=[(0.1, 0.1), (0.2, 0.1)])
    diverged = attrs.evolve(
        good, measured=attrs.evolve(good.measured, arms={**good.measured.arms, "rdm-any": (0.5, None)})
    )
    assert undefined(diverged.measured, "lrs") == "rdm-any: 1 of 2 repeats without accuracy"
    assert undefined(good.measured, "ars") == "not measured: syn-aug"
    (table,) = tables([good, attrs.evolve(diverged, submission=submission("bad"))])
    assert [row.entry.submission.method for row in table.rows] == ["good"]
    assert [(e.submission.method, why) for e, why in table.unranked] == [
        ("bad", "rdm-any: 1 of 2 repeats without accuracy")
    ]


def test_accuracy_per_byte_counts_images_labels_and_teacher():
    (table,) = tables([entry("a", lrs=[(0.1, 0.1), (0.3, 0.1)], teacher_bytes=976)])
    (row,) = table.rows
    assert (row.bytes, row.accuracy) == (2000, pytest.approx(0.7))
    assert row.accuracy_per_byte == pytest.approx(0.00035)


def test_a_row_names_the_controls_that_are_significantly_worse():
    noisy = np.array([0.01, -0.01, 0.02, -0.02, 0.0])
    controls = {
        "noise": entry("x", ars=-0.3 + noisy).measured,
        "random": entry("x", ars=0.2 - noisy).measured,
        "herding": entry("x", ars=0.5 + noisy).measured,
        "k-means": entry("x", lrs=[(0.1, 0.1)]).measured,
    }
    (table,) = tables([entry("a", ars=0.2 + 1.1 * noisy, controls=controls)], "ars", 0.0)
    assert table.rows[0].beats == ("noise",)


def test_the_first_place_changes_where_the_curves_cross():
    # Exponents 0.4 w - 0.2 and 0.15 w - 0.05 are equal at w = 0.6.
    entries = [entry("late", lrs=[(0.2, 0.2)] * 2), entry("early", lrs=[(0.1, 0.05)] * 2)]
    (table,) = tables(entries, weight=0.5)
    reigns = table.stability.reigns
    assert [reign.slug for reign in reigns] == ["early/digits-ipc1", "late/digits-ipc1"]
    ends = [(reign.start, reign.end) for reign in reigns]
    assert ends == [(0.0, pytest.approx(0.6, abs=1e-8)), (pytest.approx(0.6, abs=1e-8), 1.0)]
    taus = {weight: tau for weight, tau in table.stability.taus if weight != 0.6}
    assert taus == {weight: 1.0 if weight < 0.6 else -1.0 for weight in taus}
    assert (len(taus), min(taus), max(taus)) == (20, 0.0, 1.0)


def test_two_tables_agree_by_kendalls_tau_over_the_methods_that_both_have():
    one = [0.1, 0.2, 0.3, 0.4]
    other = [0.2, 0.1, 0.5, 0.4]
    own = [entry(f"m{i}", lrs=[(value, 0.1)] * 2) for i, value in enumerate(one)]
    fixed = [entry(f"m{i}", lrs=[(value, 0.1)] * 2, track="fixed") for i, value in enumerate(other)]
    found = tables([*own, *fixed, entry("alone", lrs=[(0.9, 0.1)] * 2)])
    result = agreement(*found)
    assert (result.common, result.tau) == (4, pytest.approx(stats.kendalltau(one, other).statistic))


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
    "scores": ["lrs"],
}
ARMS: dict[str, list[float | None]] = {
    "full-hard": [0.95, 0.95, 0.96],
    "syn-hard": [0.8, 0.82, 0.81],
    "syn-any": [0.8, 0.82, 0.84],
    "rdm-any": [0.7, 0.75, 0.71],
}


def record(shift: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Return a record with what a board needs; `shift` is added to the accuracies of syn-any."""
    arms = {**ARMS, "syn-any": [value + shift for value in (0.8, 0.82, 0.84)]}
    values = {
        "schema_version": 1,
        "scores": {"lrs": {"mean": 0.27, "std": 0.01, "ci95": 0.02, "n": 3, "values": [], "reason": None}},
        "arms": {
            name: {"accuracy": {"values": accuracies}, "learning_rates": [0.01] * 3, "source": None}
            for name, accuracies in arms.items()
        },
        "trials": [{"repeat": r, "seed": 100 + r, "arm": "syn-any"} for r in (0, 0, 1, 1, 2, 2)],
        "config": CONFIG,
        "protocol": {"name": "strict", "version": "1"},
        "versions": {"ddrank": "0.1.0"},
        "data": {
            "dataset": {
                "train_sha256": "1" * 64,
                "test_sha256": "2" * 64,
                "classes": [str(digit) for digit in range(10)],
                "image_shape": [1, 8, 8],
            },
            "distilled": {"sha256": "3" * 64, "images": 10, "soft_labels": None},
        },
        "teachers": [],
        "device": "cpu",
    }
    return {**values, **changes}


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


def test_a_folder_of_submissions_becomes_entries(tmp_path: Path):
    cost, claimed = {"gpu_hours": 2.5, "device": "A100"}, [{"accuracy": 0.83, "source": "table 1"}]
    records = {"own/method": record(), "own/random": record(-0.1), "fixed/method": record(0.01)}
    submit(tmp_path, "dm", records, cost=cost, claimed=claimed)
    submit(tmp_path, "later", {})
    board = load_board(tmp_path)
    assert board.problems == ()
    assert board.waiting == ("later/digits-ipc1",)
    own, fixed = board.entries
    assert (own.submission.slug, own.track, fixed.track) == ("dm/digits-ipc1", "own", "fixed")
    assert (own.student, own.labels, own.augmentation) == ("convnet depth=2", "hard", "dsa")
    assert own.measured.arms["rdm-any"] == (0.7, 0.75, 0.71)
    assert own.measured.learning_rates["rdm-any"] == (0.01,) * 3
    assert own.measured.scores == {"lrs": (0.27, 0.02)}
    assert (own.measured.seeds, own.measured.protocol) == ((100, 101, 102), "strict 1")
    assert not own.measured.full_given
    assert list(own.controls) == ["random"]
    assert own.controls["random"].arms["syn-any"] == pytest.approx((0.7, 0.72, 0.74))
    assert own.command == "ddrank submission evaluate submissions/dm/digits-ipc1 --track own"
    assert (own.image_bytes, own.label_bytes, own.teacher_bytes) == (10 * 64 * 4, 10, 0)


@pytest.mark.parametrize(
    ("recipe", "soft", "label_bytes", "teacher_bytes"),
    [
        ("smooth", "logits", 10, 0),
        ("soft", "logits", 10 + 10 * 10 * 4, 0),
        ("stored-views", None, 10 + 777, 0),
        # Two layers of 8 units: 64 x 8 + 8, 8 x 8 + 8, 8 x 10 + 10 weights of four bytes; and a file of 99.
        ("teacher", "logits", 10, 4 * (520 + 72 + 90) + 99),
        ("acme/all", "logits", 10 + 400 + 777, 4 * 682 + 99),
    ],
)
def test_labels_and_teachers_count_where_the_label_mapping_needs_them(
    tmp_path: Path, recipe: str, soft: str | None, label_bytes: int, teacher_bytes: int
):
    teachers = [
        {"use": "mlp", "width": 8, "checkpoint": None, "accuracy": None},
        {"use": "mlp", "checkpoint": "somewhere/else/teacher.safetensors", "accuracy": 0.9},
    ]
    found = record(
        config=config(recipe__labels={"use": recipe}, distilled__views="views.safetensors", teachers=teachers)
    )
    found["data"]["distilled"]["soft_labels"] = soft
    folder = submit(tmp_path, "dm", {"own/method": found})
    (folder / "views.safetensors").write_bytes(bytes(777))
    (folder / "teacher.safetensors").write_bytes(bytes(99))
    board = load_board(tmp_path)
    assert board.problems == ()
    (found_entry,) = board.entries
    assert (found_entry.label_bytes, found_entry.teacher_bytes) == (label_bytes, teacher_bytes)


def test_weights_are_never_fetched_to_count_them(tmp_path: Path):
    # What torchvision states of resnet18, for three channels and 1000 classes.
    teacher = {"use": "torchvision/resnet18", "pretrained": True}
    found = record(config=config(recipe__labels={"use": "teacher"}, teachers=[teacher]))
    found["data"]["dataset"]["image_shape"] = [3, 224, 224]
    found["data"]["dataset"]["classes"] *= 100
    submit(tmp_path, "dm", {"own/method": found})
    board = load_board(tmp_path)
    assert board.problems == ()
    assert board.entries[0].teacher_bytes == 4 * 11_689_512


def test_of_more_than_256_classes_a_hard_label_takes_two_bytes(tmp_path: Path):
    found = record()
    found["data"]["dataset"]["classes"] = [str(number) for number in range(257)]
    submit(tmp_path, "dm", {"own/method": found})
    assert load_board(tmp_path).entries[0].label_bytes == 20


def without(field: str) -> dict[str, Any]:
    found = record()
    *steps, last = field.split(".")
    place = found
    for step in steps:
        place = place[step]
    del place[last]
    return found


def with_arm(name: str, values: list[Any]) -> dict[str, Any]:
    found = record()
    found["arms"][name]["accuracy"]["values"] = values
    return found


BROKEN: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "record.json: is not strict JSON"),
    "NaN": ('{"arms": NaN}', "record.json: is not strict JSON"),
    "a list": ("[]", "record.json: is not a JSON object"),
    "nested": ("[" * 100_000, "record.json: is not strict JSON"),
    "no arms": (without("arms"), "record.json: arms: missing"),
    "no device": (without("device"), "record.json: device: missing"),
    "no shape": (without("data.dataset.image_shape"), "record.json: data.dataset.image_shape: missing"),
    "infinite": (
        json.dumps(record()).replace("0.75", "1e999"),
        "record.json: rdm-any.accuracy.values: must be a finite number",
    ),
    "percent": (
        with_arm("syn-hard", [80, 82, 81]),
        "arms.syn-hard: an accuracy is not a fraction from 0 to 1",
    ),
    "text": (with_arm("syn-hard", ["80", 1, 1]), "syn-hard.accuracy.values: must be a finite number"),
    "short": (with_arm("syn-hard", [0.8]), "arms.syn-hard: 1 repeats, where another arm has 3"),
    "other data": (
        record(config=config(dataset={"use": "mnist"})),
        "config.dataset: mnist, but the submission is for digits",
    ),
    "no views": (
        record(config=config(recipe__labels={"use": "stored-views"}, distilled__views="../../x")),
        "config.distilled.views: not in the submission, so its bytes are not known",
    ),
    "huge teacher": (
        record(config=config(recipe__labels={"use": "teacher"}, teachers=[{"use": "mlp", "width": 10**12}])),
        "config.teachers[0]: a parameter is larger than 65536, which no network's is",
    ),
    "no teacher": (
        record(config=config(recipe__labels={"use": "teacher"}, teachers=[{"use": "mpl"}])),
        "config.teachers[0]: teacher: network: ",
    ),
    "misspelt teacher": (
        record(config=config(recipe__labels={"use": "teacher"}, teachers=[{"use": "mlp", "widht": 8}])),
        "teacher: network.widht: unknown field (did you mean 'width'?)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_submission_is_one_line_and_does_not_stop_the_others(tmp_path: Path, name: str):
    content, expected = BROKEN[name]
    submit(tmp_path, "a", {"own/method": record()})
    submit(tmp_path, "b", {"own/method": content})
    submit(tmp_path, "c", {"own/method": record()})
    board = load_board(tmp_path)
    assert [found.submission.method for found in board.entries] == ["a", "c"]
    (problem,) = board.problems
    assert problem.where == "b/digits-ipc1"
    assert expected in problem.what
    assert "\n" not in problem.what


@pytest.mark.parametrize("link", ["record", "contestant", "results", "submission", "method"])
def test_a_link_in_a_submission_is_not_followed(tmp_path: Path, link: str):
    elsewhere = submit(tmp_path / "elsewhere", "b", {"own/method": record()})
    board = tmp_path / "board"
    if link == "method":
        board.mkdir()
        (board / "b").symlink_to(elsewhere.parent)
    elif link == "submission":
        (board / "b").mkdir(parents=True)
        (board / "b" / "digits-ipc1").symlink_to(elsewhere)
    else:
        folder = submit(board, "b", {})
        steps = {"results": (), "contestant": ("own", "method"), "record": ("own", "method", "record.json")}
        place = folder.joinpath("results", *steps[link])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(elsewhere / place.relative_to(folder))
    found = load_board(board)
    assert found.entries == ()
    assert "is a symbolic link" in found.problems[0].what


def test_a_pipe_in_the_place_of_a_record_does_not_block(tmp_path: Path):
    folder = submit(tmp_path, "b", {})
    (folder / "results" / "own" / "method").mkdir(parents=True)
    os.mkfifo(folder / "results" / "own" / "method" / "record.json")
    assert "is not a plain file" in load_board(tmp_path).problems[0].what


def checked(folder: Path, level: str = "warning") -> None:
    """Write what a check of the folder leaves, with one finding."""
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    finding = {"level": level, "check": "real images", "text": "two", "picture": "check-pairs.png"}
    report = {"checked": {"files": digests}, "findings": [finding]}
    (folder / "check.json").write_text(json.dumps(report))


def test_findings_come_with_the_row_and_an_error_refuses_it(tmp_path: Path):
    checked(submit(tmp_path, "fine", {"own/method": record()}))
    checked(submit(tmp_path, "refused", {"own/method": record()}), "error")
    submit(tmp_path, "unchecked", {"own/method": record()})
    board = load_board(tmp_path)
    assert [(e.submission.method, [f.text.partition(";")[0] for f in e.findings]) for e in board.entries] == [
        ("fine", ["two"]),
        ("unchecked", ["not checked yet"]),
    ]
    assert board.entries[0].findings[0].picture == "check-pairs.png"
    assert [problem.where for problem in board.problems] == ["refused/digits-ipc1"]
    assert board.problems[0].what.endswith("check.json: refused by its check: two")


@pytest.mark.parametrize(
    "changed", ["submission.yaml", "run.yaml", "set.safetensors", "results/own/method/record.json"]
)
def test_a_check_of_other_files_is_said_to_be_one(tmp_path: Path, changed: str):
    folder = submit(tmp_path, "dm", {"own/method": record()})
    checked(folder)
    with (folder / changed).open("a") as file:
        file.write("\n")
    texts = [finding.text for finding in load_board(tmp_path).entries[0].findings]
    assert texts[0].startswith(f"{changed} is not the file that was checked")
    assert texts[1:] == ["two"]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ([], "check.json: is not a JSON object"),
        ({"findings": ["two"]}, "findings[0]: level: missing"),
        ({"findings": [{"level": "fine", "check": "x", "text": "y"}]}, "findings[0]: level: must be one of"),
        (
            {"findings": [{"level": "info", "check": "x", "text": "y", "picture": "../a.png"}]},
            "findings[0]: picture: must be the name of a .png file",
        ),
        ({"findings": []}, "check.json: checked.files: missing"),
    ],
)
def test_a_damaged_check_is_one_line(tmp_path: Path, report: Any, expected: str):
    folder = submit(tmp_path, "dm", {"own/method": record()})
    (folder / "check.json").write_text(json.dumps(report))
    assert expected in load_board(tmp_path).problems[0].what


def test_repeats_that_share_a_seed_are_not_taken_for_pairs(tmp_path: Path):
    trials = [{"repeat": repeat, "seed": 7} for repeat in range(3)]
    submit(tmp_path, "dm", {"own/method": record(trials=trials)})
    assert load_board(tmp_path).entries[0].measured.seeds == ()


# -- variants ----------------------------------------------------------------------------------


def test_the_same_set_is_ranked_under_each_augmentation_and_each_label_mapping(tmp_path: Path):
    plain = config(recipe__augmentation=[])
    smooth = config(recipe__labels={"use": "smooth"}, recipe__loss={"use": "sce"})
    records = {
        "own/method": record(),
        "own/method-augmentation-none": record(0.05, config=plain),
        "own/method-labels-smooth": record(-0.05, config=smooth),
    }
    submit(tmp_path, "dm", records)
    board = load_board(tmp_path)
    assert board.problems == ()
    main, by_augmentation, by_labels = tables(board.entries)
    assert [row.entry.variant for row in main.rows] == [None]
    assert (by_augmentation.key.of, by_augmentation.key.axis) == ("dm/digits-ipc1", "augmentation")
    assert [row.entry.augmentation for row in by_augmentation.rows] == ["none", "dsa"]
    assert [row.entry.labels for row in by_labels.rows] == ["hard", "smooth"]
    (command,) = {row.entry.command for row in by_augmentation.rows if row.entry.variant}
    assert command == "ddrank run submissions/dm/digits-ipc1/run.yaml --set 'recipe.augmentation=[]'"


def test_another_student_makes_a_row_in_that_students_table(tmp_path: Path):
    other = config(student={"use": "mlp", "width": 8})
    for method, shift in (("a", 0.05), ("b", 0.0)):
        records = {"own/method": record(shift), "own/method-student-mlp": record(-shift, config=other)}
        submit(tmp_path, method, records)
    found = tables(load_board(tmp_path).entries)
    assert [[row.entry.submission.method for row in table.rows] for table in found] == [
        ["a", "b"],
        ["b", "a"],
    ]
    (change,) = agreements(found)
    assert (change.one.student, change.other.student) == ("convnet depth=2", "mlp width=8")
    assert (change.common, change.tau) == (2, -1.0)


def test_a_variant_may_have_been_made_where_files_lie_elsewhere(tmp_path: Path):
    def made_in(folder: str, **changes: Any) -> dict[str, Any]:
        teachers = [{"use": "mlp", "checkpoint": f"{folder}/teacher.safetensors", "accuracy": None}]
        files = {"distilled__path": f"{folder}/x", "distilled__views": f"{folder}/v", "teachers": teachers}
        return record(config=config(**files, **changes), teachers=[{"digest": "9" * 64}])

    records = {"own/method": made_in("here"), "own/method-augmentation-none": made_in("there")}
    records["own/method-augmentation-none"]["config"]["recipe"]["augmentation"] = []
    submit(tmp_path, "dm", records)
    board = load_board(tmp_path)
    assert (len(board.entries), board.problems) == (2, ())


@pytest.mark.parametrize(
    ("variant", "changed", "field"),
    [
        (
            "augmentation-none",
            record(config=config(recipe__augmentation=[], recipe__epochs=20)),
            "recipe.epochs",
        ),
        ("augmentation-none", record(config=config(recipe__labels={"use": "soft"})), "recipe.labels"),
        ("labels-soft", record(config=config(recipe__augmentation=[])), "recipe.augmentation"),
        ("student-mlp", record(config=config(teachers=[{"use": "mlp"}])), "teachers"),
        ("student-mlp", record(teachers=[{"digest": "9" * 64}]), "weights of teachers"),
    ],
)
def test_a_variant_that_differs_in_more_than_one_thing_is_refused(
    tmp_path: Path, variant: str, changed: dict[str, Any], field: str
):
    submit(tmp_path, "dm", {"own/method": record(), f"own/method-{variant}": changed})
    board = load_board(tmp_path)
    assert board.entries == ()
    assert f": {field}: differs from the method's own record; only " in board.problems[0].what


def test_a_variant_that_differs_in_nothing_is_refused(tmp_path: Path):
    submit(tmp_path, "dm", {"own/method": record(), "own/method-student-same": record()})
    expected = "student: as in the method's own record, so this is no variant"
    assert expected in load_board(tmp_path).problems[0].what


def test_a_variant_needs_the_method_itself_and_its_own_recipe(tmp_path: Path):
    plain = record(config=config(recipe__augmentation=[]))
    submit(tmp_path, "a", {"own/method-augmentation-none": plain})
    submit(tmp_path, "b", {"fixed/method": record(), "fixed/method-augmentation-none": plain})
    alone, fixed = load_board(tmp_path).problems
    assert alone.what.endswith("a variant of a method that was not evaluated itself on this track")
    assert fixed.what.endswith("variants are of the method's own recipe, in results/own")


def test_a_variant_of_another_distilled_set_is_refused(tmp_path: Path):
    other = record(config=config(recipe__augmentation=[]))
    other["data"]["distilled"]["sha256"] = "4" * 64
    submit(tmp_path, "dm", {"own/method": record(), "own/method-augmentation-none": other})
    assert "data.distilled.sha256: differs" in load_board(tmp_path).problems[0].what


# -- the command -------------------------------------------------------------------------------


def ranked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = launcher.main(["rank", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_terminal_shows_ties_and_fits_100_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    claimed, cost = [{"accuracy": 0.8312, "source": "t"}], {"gpu_hours": 123.4, "device": "A100"}
    long = "a-method-with-a-name-that-is-far-too-long"
    controls = {f"own/{name}": record(-0.3) for name in ("noise", "random")}
    submit(tmp_path, long, {"own/method": record(0.05), **controls}, claimed=claimed, cost=cost)
    submit(tmp_path, "close", {"own/method": with_arm("syn-any", [0.86, 0.86, 0.88])})
    submit(tmp_path, "worse", {"own/method": record(-0.2), "fixed/method": record()})
    submit(tmp_path, "diverged", {"own/method": with_arm("syn-any", [0.8, None, 0.8])})
    submit(tmp_path, "broken", {"own/method": "{"})
    code, out, err = ranked(capsys, str(tmp_path), "--track", "own")
    assert code == 0
    assert [line.partition(": ")[0] for line in err.splitlines()] == ["left out"]
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "digits, IPC 1, track own, protocol strict 1: by LRS, w = 0.5"
    shown = {cells[2]: cells for line in lines if len(cells := line.split()) > 3 and "0." in line}
    assert [cells[0] for cells in shown.values() if cells[0][0].isdigit()] == ["1=", "1=", "3"]
    assert shown["worse"][1] == "3-3"
    assert all(value in out for value in ("2 of 2", "123.4", "83.12"))
    assert "diverged: undefined: syn-any: 1 of 3 repeats without accuracy" in lines


def test_the_terminal_says_where_the_first_place_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    # By hand: IOR 0.1 and HLR 0.16 against IOR 0.05 and HLR 0.06, equal where 0.05 w = 0.1 (1 - w).
    arms = {"full-hard": [0.9] * 2, "rdm-any": [0.5] * 2}
    for name, ior, hlr in (("late", 0.1, 0.16), ("early", 0.05, 0.06)):
        found = record()
        values = {**arms, "syn-hard": [0.9 - hlr] * 2, "syn-any": [0.5 + ior] * 2}
        found["arms"] = {
            arm: {"accuracy": {"values": accuracies}, "learning_rates": [], "source": None}
            for arm, accuracies in values.items()
        }
        submit(tmp_path, name, {"own/method": found})
    out = ranked(capsys, str(tmp_path))[1].splitlines()
    assert "first: early for w from 0 to 0.667, late for w from 0.667 to 1" in out
    assert "order: Kendall's tau to this one 1.00 at w = 0, -1.00 at w = 1; least -1.00 at w = 0.7" in out
    out = ranked(capsys, str(tmp_path), "--by", "ars")[1].splitlines()
    assert "early: undefined: not measured: syn-aug" in out


def test_filters_choose_tables_and_say_when_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    submit(tmp_path, "dm", {"own/method": record(), "fixed/method": record()})
    assert ranked(capsys, str(tmp_path), "--track", "fixed")[1].count("protocol") == 1
    assert ranked(capsys, str(tmp_path), "--dataset", "digits", "--ipc", "1")[1].count("protocol") == 2
    assert ranked(capsys, str(tmp_path), "--ipc", "2") == (
        2,
        "",
        f"error: {tmp_path}: no evaluated submission of that kind\n",
    )
    assert ranked(capsys, str(tmp_path / "nowhere"))[0] == 2
    code, out, _ = ranked(capsys, str(tmp_path), "--by", "ars", "--weight", "0.25", "--track", "own")
    assert (code, "by ARS, g = 0.25" in out, "dm: undefined: not measured: syn-aug" in out) == (0, True, True)


def test_files_are_safe_for_spreadsheets_and_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    board = tmp_path / "board"
    hostile = config(
        recipe__labels={"use": '=HYPERLINK("http://x")'}, student={"use": "@net\x1b[2J", "text": "<b>\ud800"}
    )
    submit(board, "a", {"own/method": record(0.05, config=hostile)}, method="Method, A")
    submit(board, "b", {"own/method": record(config=hostile)})
    code, out, _ = ranked(
        capsys, str(board), "--csv", str(tmp_path / "r.csv"), "--json", str(tmp_path / "r.json")
    )
    assert code == 0
    assert "\x1b" not in out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    assert {(row["labels"], row["student"][:5]) for row in rows} == {('\'=HYPERLINK("http://x")', "'@net")}
    assert [row["method"] for row in rows] == ["Method, A", "b"]
    assert [(row["place"], row["slug"]) for row in rows] == [("1", "a/digits-ipc1"), ("2", "b/digits-ipc1")]

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    (table,) = found["tables"]
    first = table["rows"][0]
    assert first["mean"] == pytest.approx(float(rows[0]["mean"])) == pytest.approx(np.mean(first["values"]))
    assert first["seeds"] == [100, 101, 102]
    assert table["p_values"][0][1] == table["p_values"][1][0]


def test_a_file_that_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    submit(tmp_path / "board", "a", {"own/method": record()})
    code, out, err = ranked(capsys, str(tmp_path / "board"), "--csv", str(tmp_path))
    assert (code, out, err) == (2, "", f"error: --csv {tmp_path}: is a folder; name a file\n")
