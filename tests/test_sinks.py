"""Sinks: what keeps the events of a run, each read back with a reader that is not ours."""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import attrs
import ddrank_sinks
import pytest
from ddrank_sinks.csv_file import CSV
from ddrank_sinks.jsonl import JSONLines
from ddrank_sinks.mlflow_run import MLflow
from ddrank_sinks.numbers import Number, Numbers
from ddrank_sinks.tensorboard_events import TensorBoard
from ddrank_sinks.values import flat
from ddrank_sinks.wandb_run import WeightsAndBiases

from ddrank_core import RunFailed, RunFinished, RunStarted, TrialFailed, TrialFinished
from ddrank_core.cli.sinks import Sinks, open_sinks, parsed
from ddrank_core.errors import ConfigError
from ddrank_core.plugins import Plugin, PluginHost
from ddrank_core.registry import Registry
from ddrank_core.testing.sinks import broken_off, events, started

HOOKS = {
    "RunStarted": "ddrank_run_started",
    "TrialStarted": "ddrank_trial_started",
    "EpochFinished": "ddrank_epoch_finished",
    "TrialFinished": "ddrank_trial_finished",
    "TrialFailed": "ddrank_trial_failed",
    "RunFinished": "ddrank_run_finished",
    "RunFailed": "ddrank_run_failed",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a run folder."""
    place = tmp_path / "runs" / "made-up"
    place.mkdir(parents=True)
    return place


def run(sink, folder, following=None):
    """Give a sink the events of a run, all of them unless told."""
    writer = sink.open(started(folder))
    for event in events(folder) if following is None else following:
        writer.write(event)
    writer.close()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return [
        json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").split("\n")[:-1]
    ]


def finished(folder: Path) -> list[TrialFinished]:
    return [event for event in events(folder) if isinstance(event, TrialFinished)]


# CSV


def test_csv_has_a_row_for_each_trial_that_ended(folder):
    run(CSV(), folder)
    found = rows(folder / "trials-live.csv")
    assert [("0", "finished"), ("1", "diverged"), ("2", "failed"), ("3", "finished")] == [
        (row["repeat"], row["status"]) for row in found
    ]
    assert ["0.5", "", "", ""] == [row["accuracy"] for row in found]
    assert ["true", "false", "", "false"] == [row["reused"] for row in found]
    assert ["1", "2", "3", "4"] == [row["done"] for row in found]
    assert {"made-up"} == {row["run"] for row in found}
    assert {str(folder)} == {row["folder"] for row in found}
    assert all(datetime.fromisoformat(row["time"]).tzinfo for row in found)


def test_csv_leaves_numbers_that_are_not_finite_empty(folder):
    run(CSV(), folder)
    diverged = rows(folder / "trials-live.csv")[1]
    assert ("", "") == (diverged["validation_accuracy"], diverged["seconds"])


def test_csv_makes_a_text_that_starts_like_a_formula_a_text(folder):
    run(CSV(), folder)
    assert rows(folder / "trials-live.csv")[2]["error"].startswith("'=the worker's machine")


def test_csv_has_each_row_when_the_trial_ends_and_not_later(folder):
    writer = CSV().open(started(folder))
    counts = []
    for event in events(folder):
        writer.write(event)
        counts.append(len(rows(folder / "trials-live.csv")))
    writer.close()
    ends = (TrialFinished, TrialFailed)
    expected = [isinstance(event, ends) and getattr(event, "final", True) for event in events(folder)]
    assert [sum(expected[: place + 1]) for place in range(len(expected))] == counts


def test_csv_of_a_run_that_goes_on_has_one_header_and_each_trial_once(folder):
    run(CSV(), folder, broken_off(folder)[:8])
    again = [
        attrs.evolve(event, result=attrs.evolve(event.result, reused=True)) for event in finished(folder)[:2]
    ]
    run(CSV(), folder, [*again, *events(folder)[8:]])
    found = rows(folder / "trials-live.csv")
    assert ["0", "1", "2", "3"] == [row["repeat"] for row in found]
    assert 1 == (folder / "trials-live.csv").read_text().count("validation_accuracy")


def test_csv_shared_by_two_runs_has_what_each_of_them_read_back(tmp_path):
    path = tmp_path / "all.csv"
    for name in ("one", "two"):
        run(CSV(path=path), tmp_path / name, finished(tmp_path)[:1])
    assert [str(tmp_path / "one"), str(tmp_path / "two")] == [row["folder"] for row in rows(path)]


@pytest.mark.parametrize("sink", [CSV(), JSONLines()])
@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_last_line_that_was_cut_off_is_taken_away_and_the_rest_stays(folder, sink, cut):
    run(sink, folder)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    run(sink, folder, [])
    kept = whole[: whole.rindex(b"\n", 0, -1) + 1]
    added = path.read_bytes().removeprefix(kept)
    if isinstance(sink, CSV):
        assert b"" == added
        assert ["0", "1", "2"] == [row["repeat"] for row in rows(path)]
    else:
        assert ["run_started"] == [json.loads(line)["event"] for line in added.splitlines()]
        assert len(events(folder)) + 1 == len(lines(path))


def test_csv_does_not_touch_a_table_of_something_else(tmp_path, folder):
    other = tmp_path / "scores.csv"
    other.write_text("score,mean\nhlr,0.5")
    with pytest.raises(ConfigError, match=r"scores.csv: has other columns than these"):
        CSV(path=other).open(started(folder))
    assert "score,mean\nhlr,0.5" == other.read_text()


# JSON lines


def test_jsonl_has_every_event_as_strict_json_with_its_time(folder):
    run(JSONLines(), folder)
    found = lines(folder / "events.jsonl")
    happened = (started(folder), *events(folder))
    assert [HOOKS[type(event).__name__].removeprefix("ddrank_") for event in happened] == [
        line["event"] for line in found
    ]
    times = [datetime.fromisoformat(line["time"]) for line in found]
    assert times == sorted(times)
    assert all(time.tzinfo for time in times)
    for event, line in zip(happened, found, strict=True):
        assert {field.name for field in attrs.fields(type(event))} == set(line) - {"time", "event"}


def test_jsonl_has_the_values_of_an_event(folder):
    run(JSONLines(), folder)
    first, *_, last = lines(folder / "events.jsonl")
    assert {"use": "convnet", "depth": 3} == first["config"]["student"]
    assert str(folder) == first["folder"] == last["folder"]
    assert (0.25, [0.5, None]) == (last["scores"]["ior"]["mean"], last["arms"]["syn-any"]["accuracies"])


def test_jsonl_has_null_for_a_number_that_is_not_finite_and_text_in_a_config(folder):
    event = attrs.evolve(started(folder), config={"loss": {"limit": float("inf"), "other": float("nan")}})
    writer = JSONLines().open(event)
    writer.write(finished(folder)[1])
    writer.close()
    first, second = lines(folder / "events.jsonl")
    assert {"limit": "inf", "other": "nan"} == first["config"]["loss"]
    assert (None, None) == (second["result"]["validation_accuracy"], second["result"]["seconds"])


def test_jsonl_adds_to_the_file_of_the_run_that_was_stopped(folder):
    run(JSONLines(), folder, broken_off(folder))
    before = (folder / "events.jsonl").read_bytes()
    run(JSONLines(), folder)
    assert (folder / "events.jsonl").read_bytes().startswith(before)
    assert 2 == [line["event"] for line in lines(folder / "events.jsonl")].count("run_started")


def test_jsonl_does_not_touch_a_file_of_something_else(tmp_path, folder):
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    with pytest.raises(ConfigError, match=r"notes.txt: holds something else than a run's events"):
        JSONLines(path=other).open(started(folder))
    assert "mine" == other.read_text()


def in_a_process(script: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run code that finds the events of a run in its standard input."""
    happened = pickle.dumps((started(folder), *events(folder)))
    return subprocess.run([sys.executable, "-c", script], input=happened, capture_output=True)


def test_what_is_written_outlives_a_process_that_is_killed(folder):
    script = """
import os, pickle, signal, sys
from ddrank_sinks.csv_file import CSV
from ddrank_sinks.jsonl import JSONLines
first, *others = pickle.load(sys.stdin.buffer)
for sink in (CSV(), JSONLines()):
    writer = sink.open(first)
    for event in others:
        writer.write(event)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert -signal.SIGKILL == in_a_process(script, folder).returncode
    assert 4 == len(rows(folder / "trials-live.csv"))
    assert 1 + len(events(folder)) == len(lines(folder / "events.jsonl"))


# Trackers


def test_the_numbers_of_a_run_are_those_of_its_trials_arms_and_scores(folder):
    numbers = Numbers()
    found = [number for event in events(folder) for number in numbers.of(event)]
    assert [
        Number("trials/done", 1, 1),
        Number("accuracy/syn-any", 0.5, 1),
        Number("validation_accuracy/syn-any", 0.5, 1),
        Number("learning_rate/syn-any", 0.01, 1),
        # Its validation accuracy is not finite.
        Number("trials/done", 2, 2),
        Number("learning_rate/syn-any", 0.01, 2),
        Number("trials/done", 3, 3),
        Number("trials/failed", 1, 3),
        Number("trials/done", 4, 4),
        Number("validation_accuracy/rdm-any", 0.5, 4),
        Number("learning_rate/rdm-any", 0.01, 4),
        Number("final_accuracy/syn-any", 0.5, 0),
        Number("final_accuracy/rdm-any", 0.25, 0),
        Number("final_accuracy/rdm-any", 0.75, 1),
        Number("scores/ior", 0.25, 4),
    ] == found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return TensorBoard's curves, as its own reader gives them."""
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = loading.EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag: [(point.step, point.value) for point in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]
    }


def test_tensorboard_shows_the_numbers_and_the_config(folder):
    found = scalars_of_a_run(folder)
    numbers = Numbers()
    expected: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        for number in numbers.of(event):
            expected.setdefault(number.name, []).append((number.step, number.value))
    assert expected.keys() == found.keys()
    for name, points in expected.items():
        assert [step for step, _ in points] == [step for step, _ in found[name]]
        assert [value for _, value in points] == pytest.approx([value for _, value in found[name]])


def scalars_of_a_run(folder: Path) -> dict[str, list[tuple[int, float]]]:
    pytest.importorskip("tensorboard")
    run(TensorBoard(), folder)
    return scalars(folder / "tensorboard")


def test_tensorboard_of_a_run_that_goes_on_keeps_the_earlier_file_and_shows_each_point_once(folder):
    once = scalars_of_a_run(folder)
    (first,) = (folder / "tensorboard").iterdir()
    before = first.read_bytes()
    run(TensorBoard(), folder)
    assert before == first.read_bytes()
    assert 2 == len(list((folder / "tensorboard").iterdir()))
    assert once == scalars(folder / "tensorboard")


def test_tensorboard_puts_runs_that_share_a_folder_beside_each_other(tmp_path):
    pytest.importorskip("tensorboard")
    for name in ("one", "two"):
        run(TensorBoard(folder=tmp_path / "logs"), tmp_path / name)
    assert ["one", "two"] == sorted(path.name for path in (tmp_path / "logs").iterdir())


def test_mlflow_has_the_metrics_and_the_config_in_its_database(folder):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    run(MLflow(), folder)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("ddrank").experiment_id])
    assert ("FINISHED", "made-up") == (found.info.status, found.info.run_name)
    assert 0.25 == found.data.metrics["scores/ior"]
    assert "convnet" == found.data.params["student.use"]
    points = client.get_metric_history(found.info.run_id, "final_accuracy/rdm-any")
    assert [(0, 0.25), (1, 0.75)] == sorted((point.step, point.value) for point in points)


def test_wandb_keeps_a_run_offline(folder):
    pytest.importorskip("wandb")
    run(WeightsAndBiases(mode="offline"), folder)
    (kept,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    assert kept.stat().st_size > 0


def test_a_config_becomes_columns():
    config = {"student": {"use": "convnet", "depth": 3}, "scores": ["hlr", "ior"], "seed": None, "lr": 0.1}
    assert {"student.use": "convnet", "student.depth": 3, "scores": "['hlr', 'ior']", "lr": 0.1} == flat(
        config
    )


# The option


@pytest.fixture
def registry() -> Registry:
    """Give a registry of the package's own sinks."""
    plugin = Plugin("sinks", "ddrank_sinks", "ddrank", "0.1.0", lambda: ddrank_sinks)
    return Registry(PluginHost([plugin]), "0.1.0")


READ = {
    "csv": {"use": "csv"},
    "csv:path=a.csv": {"use": "csv", "path": "a.csv"},
    "csv:path=a,b.csv": {"use": "csv", "path": "a,b.csv"},
    "csv:path=C:/a=b.csv": {"use": "csv", "path": "C:/a=b.csv"},
    "csv:path=null": {"use": "csv", "path": None},
    "wandb:project=one,mode=offline": {"use": "wandb", "project": "one", "mode": "offline"},
    "wandb:project=one, mode=offline": {"use": "wandb", "project": "one", "mode": "offline"},
    "acme/box:sizes=[1, 2],deep=true": {"use": "acme/box", "sizes": [1, 2], "deep": True},
}


@pytest.mark.parametrize("text", READ)
def test_a_sink_is_named_with_its_fields(text):
    assert READ[text] == parsed(text)


REFUSED = {
    "cvs": "--sink cvs: no sink 'cvs' (did you mean 'csv'?); see 'ddrank list sink'",
    "": "--sink : no sink ''; see 'ddrank list sink'",
    "csv:pth=x": "--sink csv:pth=x: pth: unknown field (did you mean 'path'?)",
    "csv:path=[1]": "--sink csv:path=[1]: path: must be text, got [1]",
    "csv:path=a,path=b": "--sink csv:path=a,path=b: 'path' stands twice",
    "csv:use=jsonl": "--sink csv:use=jsonl: 'use' is no field",
    "csv:path=[": "--sink csv:path=[",
    "csv:": "--sink csv:: must look like NAME or NAME:FIELD=VALUE,FIELD=VALUE, such as csv:path=trials.csv",
    "csv:path": "--sink csv:path: must look like NAME or NAME:FIELD=VALUE",
    "csv:path=.": "--sink csv:path=.: .: is a folder; name a file in it",
    "jsonl:path=file/a.jsonl": "--sink jsonl:path=file/a.jsonl: file: is a file, and must be a folder",
    "tensorboard:folder=file": "--sink tensorboard:folder=file: file: is a file, and must be a folder",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_opened(
    registry, tmp_path, monkeypatch, text
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as refused:
        open_sinks([text], registry)
    assert str(refused.value).startswith(REFUSED[text])
    assert "\n" not in str(refused.value)
    assert ["file"] == [path.name for path in tmp_path.iterdir()]


def test_the_same_sink_twice_is_refused(registry):
    with pytest.raises(ConfigError, match=r"^--sink csv:path=null: stands twice$"):
        open_sinks(["csv", "csv:path=null"], registry)
    assert open_sinks(["csv", "csv:path=other.csv"], registry)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(registry, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="locked: cannot be written: no permission"):
        open_sinks([f"csv:path={tmp_path}/locked/a.csv"], registry)


@pytest.mark.parametrize("library", ["tensorboard", "wandb", "mlflow"])
def test_a_library_that_is_missing_is_one_line_that_says_how_to_get_it(registry, monkeypatch, library):
    monkeypatch.setattr("ddrank_sinks.libraries.find_spec", lambda name: None)
    expected = f"--sink {library}: {library} is not installed; run: pip install 'ddrank[{library}]'"
    with pytest.raises(ConfigError) as refused:
        open_sinks([library], registry)
    assert expected == str(refused.value)


def test_the_extras_that_sinks_name_are_there():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for library in ("tensorboard", "wandb", "mlflow"):
        assert any(line.startswith(library) for line in project["optional-dependencies"][library])


def test_making_sinks_imports_no_tracker():
    script = """
import sys
from pathlib import Path
import ddrank_sinks
from ddrank_core.cli.sinks import open_sinks
from ddrank_core.plugins import Plugin, PluginHost
from ddrank_core.registry import Registry
plugin = Plugin("sinks", "ddrank_sinks", "ddrank", "0.1.0", lambda: ddrank_sinks)
registry = Registry(PluginHost([plugin]), "0.1.0")
for name in ("csv", "jsonl", "tensorboard", "wandb", "mlflow"):
    try:
        open_sinks([name], registry)
    except Exception as error:
        assert "is not installed" in str(error)
print([name for name in ("torch", "numpy", "tensorboard", "wandb", "mlflow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout


# What becomes of them in a run

BROKEN = '''
from ddrank_core import ComponentSpec, component, hookimpl, parameter


@hookimpl
def ddrank_sinks():
    return [ComponentSpec("acme/broken", "acme:Broken", "Fails")]


@component
class Broken:
    """Fail."""

    at: str = parameter("where", default="write")

    def check(self):
        if self.at == "check":
            raise ValueError("bad day\\nmore")

    def open(self, event):
        heard.append(event)
        if self.at == "open" or (self.at == "second" and len(heard) > 3):
            raise ValueError("bad day\\nmore")
        return self

    def write(self, event):
        heard.append(event)
        if self.at == "write":
            raise ValueError("bad day\\nmore")

    def close(self):
        heard.append("closed")
        if self.at == "close":
            raise SystemExit("bad day")


heard = []
'''


@pytest.fixture
def broken(install, registry, folder) -> Callable[[str], tuple[Sinks, list]]:
    """Give a function that returns sinks, one of which fails at some point, and what that one has heard."""
    install("acme", BROKEN)
    import acme

    from ddrank_core.plugins import installed

    ours = Plugin("sinks", "ddrank_sinks", "ddrank", "0.1.0", lambda: ddrank_sinks)
    theirs = [plugin for plugin in installed() if plugin.distribution == "acme"]

    def make(at: str) -> tuple[Sinks, list]:
        both = Registry(PluginHost([ours, *theirs]), "0.1.0")
        return open_sinks([f"acme/broken:at={at}", "jsonl"], both), acme.heard

    return make


def tell(sinks: Sinks, *happened) -> None:
    for event in happened:
        sinks.notify(HOOKS[type(event).__name__], event)


def test_a_sink_that_raises_is_one_line_and_dropped_and_the_others_go_on(broken, folder, capsys):
    sinks, heard = broken("write")
    tell(sinks, started(folder), *events(folder))
    assert [started(folder), events(folder)[0], "closed"] == heard
    assert (
        "warning: --sink acme/broken of acme 1.2: ValueError: bad day; it is not written to any more, "
        "the run goes on\n"
    ) == capsys.readouterr().err
    assert 1 + len(events(folder)) == len(lines(folder / "events.jsonl"))


def test_a_sink_that_cannot_be_opened_stops_a_run_in_one_line_before_it_trains(broken, folder):
    sinks, _ = broken("open")
    with pytest.raises(ConfigError, match=r"^--sink acme/broken: cannot be opened: ValueError: bad day$"):
        tell(sinks, started(folder))


def test_a_file_that_cannot_be_opened_is_named(registry, folder):
    (folder / "trials-live.csv").mkdir()
    sinks = open_sinks(["csv"], registry)
    with pytest.raises(
        ConfigError, match=r"^--sink csv: cannot be opened: .*trials-live.csv: Is a directory$"
    ):
        tell(sinks, started(folder))


def test_a_sink_that_says_it_cannot_work_is_refused_when_it_is_made(broken):
    with pytest.raises(ConfigError, match=r"^--sink acme/broken:at=check: ValueError: bad day$"):
        broken("check")


def test_a_sink_that_cannot_be_opened_for_a_later_run_is_dropped(broken, folder, capsys):
    sinks, _ = broken("second")
    failed = RunFailed(name="made-up", error="interrupted", seconds=1.0)
    tell(sinks, started(folder), failed, started(folder), failed)
    assert 1 == capsys.readouterr().err.count("bad day")
    assert 4 == len(lines(folder / "events.jsonl"))


def test_a_sink_that_fails_to_close_is_one_line(broken, folder, capsys):
    sinks, _ = broken("close")
    tell(sinks, started(folder), *events(folder))
    assert "--sink acme/broken of acme 1.2: SystemExit: bad day" in capsys.readouterr().err
    sinks.close()
    assert "" == capsys.readouterr().err


def test_the_end_of_a_run_closes_its_sinks_and_the_next_run_has_files_of_its_own(registry, tmp_path):
    sinks = open_sinks(["csv", "jsonl"], registry)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        tell(sinks, started(tmp_path / name), *events(tmp_path / name))
        assert 4 == len(rows(tmp_path / name / "trials-live.csv"))
        assert 1 + len(events(tmp_path)) == len(lines(tmp_path / name / "events.jsonl"))


def test_events_outside_of_a_run_are_ignored(registry, folder):
    sinks = open_sinks(["jsonl"], registry)
    tell(sinks, RunFailed(name="made-up", error="no data", seconds=0.0))
    sinks.close()
    assert [] == list(folder.iterdir())


def test_a_file_that_can_grow_no_more_is_dropped_in_one_line_and_the_run_goes_on(folder):
    pytest.importorskip("resource")
    script = """
import pickle, resource, signal, sys
import ddrank_sinks
from ddrank_core.cli.sinks import open_sinks
from ddrank_core.plugins import Plugin, PluginHost
from ddrank_core.registry import Registry
plugin = Plugin("sinks", "ddrank_sinks", "ddrank", "0.1.0", lambda: ddrank_sinks)
sinks = open_sinks(["csv", "jsonl"], Registry(PluginHost([plugin]), "0.1.0"))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
first, *others = pickle.load(sys.stdin.buffer)
sinks.notify("ddrank_run_started", first)
for event in others:
    sinks.notify("ddrank_trial_finished", event)
sinks.close()
"""
    (line,) = in_a_process(script, folder).stderr.splitlines()
    assert line.startswith(b"warning: --sink jsonl of ddrank 0.1.0: File too large; it is not written to")
    assert 4 == len(rows(folder / "trials-live.csv"))


def test_a_run_without_a_folder_asks_for_a_path(registry, tmp_path):
    nowhere = RunStarted(name="toy", device="cpu", arms=(), trials=1, work=1.0)
    with pytest.raises(
        ConfigError, match=r"^--sink csv: cannot be opened: this run leaves no folder; say where"
    ):
        tell(open_sinks(["csv"], registry), nowhere)
    sinks = open_sinks([f"csv:path={tmp_path}/a.csv"], registry)
    tell(sinks, nowhere, RunFinished(name="toy", folder=tmp_path, scores={}, arms={}, seconds=1.0))
    assert [] == rows(tmp_path / "a.csv")
