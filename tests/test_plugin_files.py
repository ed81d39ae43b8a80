"""One-off files: `ddrank --plugin my_loss.py`, and what the record says of them."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from tiny_case import write_case

from ddrank_core.cli import main as launcher
from ddrank_core.plugin_choice import Choice, using
from ddrank_core.registry import default_registry

SOURCE = '''
from ddrank_core import ComponentSpec, component, hookimpl, parameter

@hookimpl
def ddrank_losses():
    return [ComponentSpec("my/half", "my_loss:Half", "Half of the cross-entropy")]

@hookimpl
def ddrank_run_started(event):
    heard.append(event.name)

heard = []

@component
class Half:
    """Train with a part of the cross-entropy."""

    part: float = parameter("of the loss", default=0.5, above=0)
    offset: float = parameter("added to it", default=0.0)

    def __call__(self, logits, targets):
        from torch.nn.functional import cross_entropy

        return self.part * cross_entropy(logits, targets.hard) + self.offset
'''

COMPUTED = SOURCE.replace("return [", "return list([").replace('entropy")]', 'entropy")])')


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A one-off file, in a folder where Python does not look."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mine/my_loss.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = launcher.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("source", [SOURCE, COMPUTED], ids=["literal", "computed"])
def test_a_component_of_a_file_is_listed_and_shown_with_the_file(capsys, file, source):
    file.write_text(source)
    owner = f"file my_loss.py {digest(file)[:12]}"
    code, out, err = said(capsys, "--plugin", file, "list", "loss")
    assert (code, err) == (0, "")
    assert f"my/half  Half of the cross-entropy ({owner})" in out
    code, out, err = said(capsys, "--plugin", file, "show", "loss", "my/half")
    assert (code, err) == (0, "")
    assert f"distribution  {owner}" in out
    assert f"file          {file}" in out


def test_a_file_is_listed_among_the_plugins(capsys, file):
    line = said(capsys, "--plugin", file, "plugins")[1].splitlines()[-1]
    assert line.split() == [
        *("file", "my_loss.py", digest(file)[:12], "1", "my_loss", "good"),
        *("loss:", "my/half;", "listens:", "run", "started"),
    ]


def test_a_file_is_used_for_one_command_only(capsys, file):
    said(capsys, "--plugin", file, "show", "loss", "my/half")
    assert "my_loss" not in sys.modules
    assert said(capsys, "show", "loss", "my/half") == (
        2,
        "",
        "error: no loss 'my/half'; see 'ddrank list loss'\n",
    )


def test_a_file_is_imported_only_when_its_component_is_loaded(file):
    with using(Choice(files=(file,))):
        registry = default_registry()
        registry.entries("loss")
        assert "my_loss" not in sys.modules
        assert registry.load("loss", "my/half")().part == 0.5
        assert "my_loss" in sys.modules


def test_a_file_that_is_edited_between_two_commands_is_read_anew(file):
    for part in (0.25, 0.125):
        file.write_text(SOURCE.replace("default=0.5", f"default={part}"))
        with using(Choice(files=(file,))):
            assert default_registry().load("loss", "my/half")().part == part


def test_a_file_is_used_beside_whatever_is_chosen_of_the_installed(capsys, file):
    assert "my/half" in said(capsys, "--only", "ddrank", "--plugin", file, "list", "loss")[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_with_a_file_says_that_others_cannot_reproduce_it(capsys, file, tmp_path, workers):
    recipe = {"loss": {"use": "my/half", "part": 0.75}, "labels": "hard", "optimizer": "sgd"}
    recipe |= {"schedule": "constant", "epochs": 2, "batch_size": 4}
    protocol = {"use": "strict", "repeats": 2, "learning_rates": [0.01], "validation": 0.2}
    full = {"accuracy": 0.9, "source": "given"}
    path = write_case(tmp_path, recipe=recipe, protocol=protocol, full_data=full, scores=["hlr", "ior"])
    arguments = ("run", path, "--device", "cpu", "--workers", workers, "--out", tmp_path / "out", "--quiet")
    code, out, err = said(capsys, "--plugin", file, *arguments)
    assert (code, err) == (0, "")
    note = (
        "my/half is from the file my_loss.py, which others do not have: "
        "this record cannot be reproduced by others."
    )
    assert f"note: {note}" in out
    record = json.loads((tmp_path / "out/record.json").read_text())
    assert [found for found in record["notes"] if "my_loss.py" in found] == [note]
    (found,) = (part for part in record["components"] if part["name"] == "my/half")
    assert found == {
        "field": "recipe.loss",
        "kind": "loss",
        "name": "my/half",
        "distribution": "file my_loss.py",
        "version": digest(file)[:12],
        "from_file": True,
        "target": "my_loss:Half",
        "source_digest": digest(file),
        "parameters": {"part": 0.75, "offset": 0.0},
        "given": ["part"],
    }
    assert [part["name"] for part in record["components"] if part["from_file"]] == ["my/half"]


# What cannot be used


def test_a_broken_file_is_one_line_that_says_to_correct_it(capsys, file):
    file.write_text(SOURCE.replace("def ddrank_losses", "def ddrank_loses"))
    code, _, err = said(capsys, "--plugin", file, "list", "loss")
    assert (code, err) == (
        0,
        f"warning: plugin my_loss of file my_loss.py {digest(file)[:12]} is not used: it implements "
        "ddrank_loses, which is not a hook of ddrank.v1 (did you mean 'ddrank_losses'?); "
        "correct my_loss.py\n",
    )


def test_a_component_of_a_file_needs_a_vendor_in_its_name(capsys, file):
    file.write_text(SOURCE.replace("my/half", "half"))
    line = said(capsys, "--plugin", file, "list", "loss")[2]
    assert "'half' is a bare name, which only ddrank may use; call it 'vendor/half'; correct my_loss" in line


def test_a_class_that_a_file_does_not_have_is_one_line(capsys, file):
    file.write_text(SOURCE.replace("my_loss:Half", "my_loss:Hafl"))
    code, _, err = said(capsys, "--plugin", file, "show", "loss", "my/half")
    assert (code, err) == (
        2,
        f"error: loss 'my/half' of file my_loss.py {digest(file)[:12]} cannot be loaded from my_loss:Hafl: "
        "AttributeError: module 'my_loss' has no attribute 'Hafl'; correct my_loss.py\n",
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gone.py", "no such file"),
        (".", "no such file"),
        ("my-loss.py", "must be named as Python can import it, such as my_loss.py"),
        ("loss.txt", "must be named as Python can import it, such as my_loss.py"),
        ("json.py", "there is another module 'json'; rename the file"),
        ("ddrank_losses.py", "there is another module 'ddrank_losses'; rename the file"),
    ],
)
def test_a_file_that_python_cannot_import_is_one_line(capsys, file, name, problem):
    path = file.parent / name
    if name not in ("gone.py", "."):
        path.write_text(SOURCE)
    assert said(capsys, "--plugin", path, "list") == (2, "", f"error: --plugin {path}: {problem}\n")


def test_two_files_of_one_name_are_refused(capsys, file, tmp_path):
    other = tmp_path / "my_loss.py"
    other.write_text(SOURCE)
    line = f"error: --plugin {other}: there is another module 'my_loss'; rename the file\n"
    assert said(capsys, "--plugin", file, "--plugin", other, "list") == (2, "", line)


def test_the_same_file_twice_is_one(capsys, file):
    assert said(capsys, "--plugin", file, "--plugin", file, "list", "loss")[2] == ""


def test_a_name_that_a_file_and_a_distribution_claim_is_refused(capsys, file, install):
    install("acme", SOURCE.replace("my_loss", "acme"))
    err = said(capsys, "--plugin", file, "show", "loss", "my/half")[2]
    assert f"claimed by acme 1.2 and file my_loss.py {digest(file)[:12]}; neither is used" in err
