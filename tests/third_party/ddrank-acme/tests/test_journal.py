"""The journal has a line for every event, and nothing is written without a place for it."""

from __future__ import annotations

import json

from acme_ddrank import journal

from ddrank_core import EpochFinished, RunFailed

EPOCH = EpochFinished(training="teacher 1", epoch=1, epochs=2, work=0.0)
FAILED = RunFailed(name="case", error="out of memory", seconds=3.0)


def test_every_event_is_a_line_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ACME_JOURNAL", str(tmp_path / "journal.jsonl"))
    journal.ddrank_epoch_finished(EPOCH)
    journal.ddrank_run_failed(FAILED)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"event": "epoch finished", "training": "teacher 1", "epoch": 1, "epochs": 2},
        {"event": "run failed", "name": "case", "error": "out of memory"},
    ]


def test_without_a_place_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACME_JOURNAL", raising=False)
    journal.ddrank_run_failed(FAILED)
    assert list(tmp_path.iterdir()) == []
