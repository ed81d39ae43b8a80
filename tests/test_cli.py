"""The launcher, as it is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from ddrank_core import __version__
from ddrank_core.cli import main as launcher
from ddrank_core.cli.kinds import kind_of
from ddrank_core.cli.text import clean, table
from ddrank_core.errors import ConfigError, DataError, RunFailed
from ddrank_core.registry import ALL_KINDS

DDRANK = Path(sys.executable).parent / "ddrank"


def ddrank(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DDRANK, *arguments], capture_output=True, text=True)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the launcher in this process; return its exit code, stdout and stderr."""
    code = launcher.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# The installed script


def test_the_installed_launcher_lists_every_command_with_its_line():
    done = ddrank("--help")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(maxsplit=1) for line in done.stdout.partition("Commands:\n")[2].splitlines()]
    assert lines == [[name, line] for name, (_, line) in launcher.COMMANDS.items()]


def test_the_installed_launcher_says_its_version():
    assert ddrank("--version").stdout == f"ddrank {__version__}\n"


def test_the_installed_launcher_exits_2_with_one_line_on_bad_usage():
    done = ddrank("rnu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no such command 'rnu' (did you mean 'run'?); see 'ddrank --help'\n"


@pytest.mark.parametrize("module", ["ddrank_core", "ddrank_core.cli.main"])
def test_the_launcher_runs_as_a_module_too(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
    assert done.stdout == f"ddrank {__version__}\n"


def test_a_reader_that_goes_away_ends_a_listing_quietly():
    with subprocess.Popen([DDRANK, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (launcher.BROKEN_PIPE, b"")


# Commands and usage


@pytest.mark.parametrize("name", launcher.COMMANDS)
def test_every_command_of_the_table_is_there_and_documented(name):
    command = import_module(launcher.COMMANDS[name][0]).command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help


def test_without_a_command_the_launcher_shows_its_help(capsys):
    assert said(capsys) == said(capsys, "--help")


USAGE = {
    ("--vrsion",): "no such option --vrsion (did you mean '--version'?); see 'ddrank --help'",
    ("list", "--zzz"): "no such option --zzz; see 'ddrank list --help'",
    ("show", "loss"): "missing argument 'NAME'; see 'ddrank show --help'",
    ("data",): "missing command; see 'ddrank data --help'",
    ("list", "--plugin", "my_loss.py"): (
        "--plugin stands before the command: ddrank --plugin ... COMMAND; see 'ddrank list --help'"
    ),
    ("plugins", "now"): "got unexpected extra argument (now); see 'ddrank plugins --help'",
    ("run", "a.yaml", "--dvice", "cpu"): (
        "no such option --dvice (did you mean '--device'?); see 'ddrank run --help'"
    ),
}


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_usage_is_one_line_and_exit_2(capsys, arguments):
    code, out, err = said(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.replace("'now'", "now") == f"error: {USAGE[arguments]}\n"


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the command `plugins` raise."""

    def fail() -> None:
        raise error

    command = import_module("ddrank_core.cli.plugins_").command
    monkeypatch.setattr(command, "callback", fail)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("run.yaml: epochs: missing"), 2, "error: run.yaml: epochs: missing"),
        (RunFailed("every trial diverged"), 1, "error: every trial diverged"),
        (DataError("a\x1b[31m\n  b\u202e.pt: is\r\nbroken"), 2, "error: a[31m b.pt: is broken"),
        (click.UsageError("Two\nlines."), 2, "error: two lines"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_clean_line_and_its_exit_code(capsys, monkeypatch, error, code, line):
    failing(monkeypatch, error)
    got, out, err = said(capsys, "plugins")
    assert (got, out) == (code, "")
    assert err.partition("; see")[0].rstrip("\n") == line
    assert err.count("\n") == 1


@pytest.mark.parametrize("bug", [ZeroDivisionError("x"), EOFError("truncated"), OSError("disk")])
def test_a_bug_keeps_its_traceback(monkeypatch, bug):
    failing(monkeypatch, bug)
    with pytest.raises(type(bug)):
        launcher.main(["plugins"])


# list, show


def test_a_listing_of_one_kind_has_a_name_first_in_every_line(capsys):
    code, out, err = said(capsys, "list", "label-mapping")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [
        "hard",
        "smooth",
        "soft",
        "stored-views",
        "teacher",
    ]


def test_a_listing_without_a_kind_has_a_heading_for_each(capsys):
    out = said(capsys, "list")[1]
    assert [line for line in out.splitlines() if line and not line.startswith(" ")] == list(ALL_KINDS)


def test_a_kind_may_be_plural(capsys):
    assert said(capsys, "list", "losses") == said(capsys, "list", "loss")
    assert [kind_of(f"{kind}s") for kind in ALL_KINDS if kind != "loss"] == [
        k for k in ALL_KINDS if k != "loss"
    ]


def test_a_pattern_lists_the_members_of_a_family(capsys):
    out = said(capsys, "list", "architecture", "timm/resnet1?")[1]
    assert out.splitlines() == ["timm/resnet18"]


def test_a_pattern_keeps_the_names_that_match(capsys):
    out = said(capsys, "list", "dataset", "cifar*")[1]
    assert [line.split()[0] for line in out.splitlines()] == ["cifar10", "cifar100"]


def test_a_third_party_component_is_listed_with_its_distribution(capsys, install):
    install(
        "acme",
        "from ddrank_core import ComponentSpec, hookimpl\n"
        "@hookimpl\ndef ddrank_losses(): return [ComponentSpec('acme/focal', 'acme:Focal', 'Focal\\nloss')]",
    )
    line = said(capsys, "list", "loss")[1].splitlines()[-1]
    assert line.split() == ["acme/focal", "Focal", "loss", "(acme", "1.2)"]


def test_a_broken_plugin_is_one_line_on_stderr_and_the_listing_goes_on(capsys, install):
    healthy = said(capsys, "list")
    install("acme", "raise ImportError('a\\x1b[31mb')")
    assert said(capsys, "list") == (
        *healthy[:2],
        "warning: plugin main of acme 1.2 is not used: its import failed: ImportError: a[31mb; "
        "update acme or leave it out (--without acme)\n",
    )


REFUSED = {
    ("list", "los"): "no kind 'los' (did you mean 'loss'?)",
    ("list", "zzz"): f"no kind 'zzz'; the kinds are {', '.join(ALL_KINDS)}",
    ("list", "loss", "zzz*"): "no loss matches 'zzz*'; see 'ddrank list loss'",
    ("show", "loss", "kll"): "no loss 'kll' (did you mean 'kl'?); see 'ddrank list loss'",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_an_unknown_kind_or_name_is_one_line_with_the_nearest(capsys, arguments):
    assert said(capsys, *arguments) == (2, "", f"error: {REFUSED[arguments]}\n")


ACME = '''
from ddrank_core import ComponentSpec, component, hookimpl, parameter

@hookimpl
def ddrank_losses():
    return [ComponentSpec("acme/focal", "acme:Focal", "Focal loss")]

@component
class Focal:
    """Train with the focal loss.

        indented

    Source: Lin et al. 2017, equation 4.
    """

    gamma: float = parameter("focus on hard images", default=2.0, minimum=0, below=9)
    alpha: tuple[float, ...] | None = parameter("weight of each class", default=None)
    steps: int = parameter("no default")
'''


def test_show_says_everything_about_a_component(capsys, install, tmp_path):
    install("acme", ACME)
    code, out, err = said(capsys, "show", "losses", "acme/focal")
    assert (code, err) == (0, "")
    assert (
        out
        == f"""\
loss acme/focal
Focal loss

Train with the focal loss.

    indented

Source: Lin et al. 2017, equation 4.

Parameters:
  gamma: number, at least 0, less than 9; default 2.0
      focus on hard images
  alpha: list of number, or null; default null
      weight of each class
  steps: whole number; required
      no default

target        acme:Focal
distribution  acme 1.2
file          {tmp_path}/site-packages/acme.py

Example:

recipe:
  loss: {{use: acme/focal, gamma: 2.0, alpha: null, steps: <whole number>}}
"""
    )


def test_show_of_a_family_points_at_its_members(capsys):
    out = said(capsys, "show", "architecture", "timm/*")[1]
    assert out.splitlines()[-1] == "A family: ddrank list architecture 'timm/*' lists its members."


# Text


def test_clean_text_is_one_line_without_control_characters():
    assert clean("a\tb\n\nc\x00\x1b]0;title\x07\udcff d") == "a b c]0;title d"


def test_columns_are_aligned_and_lines_have_no_trailing_space():
    assert table([["a", "b", ""], ["long", "c", "d"]], " ") == " a     b\n long  c  d"
