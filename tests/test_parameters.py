"""Networks are counted by another process, once: whoever ranks does not wait for torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ranked_case import config, record, submit
from test_light_imports import launch

from ddrank_core.errors import DataError
from ddrank_core.leaderboard import parameters as counting
from ddrank_core.leaderboard.parameters import parameters
from ddrank_core.plugin_choice import Choice, using

MLP = {"use": "mlp", "width": 8}
WEIGHTS = (64 * 8 + 8) + (8 * 8 + 8) + (8 * 10 + 10)
"""Of MLP on digits: two hidden layers of 8 units."""
STRANGE = """
import os
from ddrank_core import ComponentSpec, component, hookimpl

@hookimpl
def ddrank_architectures():
    return [
        ComponentSpec("acme/Loud", "acme:Loud", "Prints while it is built"),
        ComponentSpec("acme/Fatal", "acme:Fatal", "Ends the process"),
        ComponentSpec("acme/Wrong", "acme:Wrong", "Cannot be built"),
    ]

@component
class Loud:
    def build(self, num_classes, image_shape):
        from torch import nn
        print("loud")
        os.write(1, b"louder")
        return nn.Linear(3, num_classes)

@component
class Fatal:
    def build(self, num_classes, image_shape):
        os._exit(1)

@component
class Wrong:
    def build(self, num_classes, image_shape):
        raise ValueError("no\\nway")
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty cache, and forget what this process has counted."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    counting._counted.cache_clear()
    return tmp_path / "cache" / "parameters"


def count(network: dict[str, Any]) -> int:
    counting._counted.cache_clear()
    return parameters(network, 10, (1, 8, 8), "here")


def nobody(*_: object) -> Any:
    raise AssertionError("a network is built")


def test_a_row_with_a_teacher_is_ranked_without_torch(tmp_path: Path, install: Any):
    """Also where its network is a plugin's that imports torch."""
    install("acme", f"import torch\n{STRANGE}")
    networks = [{**network, "checkpoint": None, "accuracy": None} for network in (MLP, {"use": "acme/Loud"})]
    taught = config(recipe__labels={"use": "teacher"}, teachers=networks)
    submit(tmp_path / "board", "dm", {"own/method": record(config=taught)})
    for _ in ("counted", "kept"):
        code, _, modules = launch(
            "rank", "board", "--json", "rank.json", folder=tmp_path, site=tmp_path / "site-packages"
        )
        assert (code, modules & {"torch", "torchvision", "timm"}) == (0, set())
        (table,) = json.loads((tmp_path / "rank.json").read_text())["tables"]
        assert [4 * (WEIGHTS + 40)] == [row["teacher_bytes"] for row in table["rows"]]


def test_what_was_counted_is_not_built_again(monkeypatch: pytest.MonkeyPatch):
    assert WEIGHTS == count(MLP)
    monkeypatch.setattr(counting, "_built", nobody)
    assert WEIGHTS == count(MLP)
    with pytest.raises(AssertionError, match="a network is built"):
        count({**MLP, "width": 9})


def test_a_damaged_number_is_counted_again(cache: Path):
    count(MLP)
    (kept,) = cache.iterdir()
    kept.write_text("many")
    assert WEIGHTS == count(MLP)
    assert str(WEIGHTS) == kept.read_text()


def test_a_cache_that_cannot_be_written_is_no_matter(tmp_path: Path):
    (tmp_path / "cache").write_text("a file")
    assert WEIGHTS == count(MLP)


def test_what_no_network_is_is_one_line():
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(DataError, match=r"^here: nested too deeply$"):
        count({**MLP, "width": nested})
    with pytest.raises(DataError, match=r"^here: use: must be text$"):
        count({"use": ["mlp"]})
    with pytest.raises(DataError, match=r"^here: cannot be built .*: ValueError: too many values to unpack"):
        parameters(MLP, 10, (1, 8, 8, 8), "here")


def test_a_network_that_takes_too_long_is_one_line(monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr(counting, "_LIMIT_SECONDS", 0.01)
        with pytest.raises(DataError, match=r"^here: cannot be built .*: it took longer than 0\.01 seconds$"):
            count(MLP)
    assert WEIGHTS == count(MLP)


def test_what_plugins_do_in_building_does_not_reach_the_ranking(install: Any, capfd: Any):
    install("acme", STRANGE)
    assert 3 * 10 + 10 == count({"use": "acme/Loud"})
    fault = "^here: cannot be built to count its parameters: "
    with pytest.raises(DataError, match=f"{fault}ValueError: no$"):
        count({"use": "acme/Wrong"})
    with pytest.raises(DataError, match=f"{fault}its process ended$"):
        count({"use": "acme/Fatal"})
    assert ("", "") == capfd.readouterr()


def test_a_plugin_of_one_file_is_known_where_networks_are_built(tmp_path: Path):
    (tmp_path / "mine.py").write_text(STRANGE.replace("acme", "mine"))
    with using(Choice(files=(Path(os.path.relpath(tmp_path / "mine.py")),))):
        assert 40 == count({"use": "mine/Loud"})
    with pytest.raises(DataError, match=r"^here: .*'mine/Loud'"):
        count({"use": "mine/Loud"})


def test_what_is_made_from_another_source_is_counted_again(
    tmp_path: Path, install: Any, monkeypatch: pytest.MonkeyPatch
):
    install("acme", STRANGE)
    assert 40 == count({"use": "acme/Loud"})
    file = tmp_path / "site-packages" / "acme.py"
    file.write_text(STRANGE.replace("nn.Linear(3,", "nn.Linear(14,"))
    monkeypatch.setattr(counting, "_built", nobody)
    with pytest.raises(AssertionError, match="a network is built"):
        count({"use": "acme/Loud"})
