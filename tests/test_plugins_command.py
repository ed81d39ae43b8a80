"""`ddrank plugins`, and which plugins a process uses: --only, --without and DDRANK_PLUGINS."""

from __future__ import annotations

import sys

import pytest

from ddrank_core.cli import main as launcher
from ddrank_core.cli.plugins_ import HEADER, rows
from ddrank_core.errors import ConfigError
from ddrank_core.plugin_choice import Choice, using
from ddrank_core.registry import default_registry

IMPORTED = "\nraise SystemExit('imported')\n"


def plugin(name: str, body: str = "") -> str:
    """Return the source of a plugin with one loss; importing it would end the process."""
    listing = f'return [ComponentSpec("{name}/loss", "{name}:Loss", "A loss of {name}")]'
    return f"""
from ddrank_core import ComponentSpec, component, hookimpl

@component
class Loss: ...

@hookimpl
def ddrank_losses():
    {body or listing}
{IMPORTED}"""


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = launcher.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def row(distribution: str) -> tuple[str, ...]:
    """Return the one line of a distribution, without its name and version."""
    (found,) = (row for row in rows(default_registry()) if row[0] == distribution)
    return found[2:]


def losses() -> list[str]:
    return [entry.name for entry in default_registry().entries("loss") if "/" in entry.name]


@pytest.fixture
def three(install) -> None:
    for name in ("acme", "beta", "zeta-losses"):
        install(name, plugin(name.replace("-", "_")).replace(IMPORTED, ""))


# What is listed


def test_a_line_has_distribution_version_api_plugin_state_and_components(capsys, install):
    install("acme", plugin("acme"))
    code, out, err = said(capsys, "plugins")
    assert (code, err) == (0, "")
    first, *_, last = out.splitlines()
    assert tuple(cell.strip() for cell in first.split("  ") if cell) == HEADER
    assert last.split() == ["acme", "1.2", "1", "main", "good", "loss:", "acme/loss"]


def test_our_own_plugins_come_first_and_nothing_is_wrong_with_them():
    found = rows(default_registry())
    assert {row[0] for row in found} == {"ddrank"}
    assert {row[3]: row[4] for row in found if row[4] != "good"} == {
        "datasets": "computed",
        "networks": "computed",
    }


def test_all_kinds_and_the_events_that_a_plugin_listens_to_are_listed(install):
    more = "@hookimpl\ndef ddrank_architectures(): return [ComponentSpec('acme/*', 'acme:Loss', 'Nets')]\n"
    more += "@hookimpl\ndef ddrank_trial_finished(event): ...\n"
    install("acme", plugin("acme").replace(IMPORTED, f"\n{more}{IMPORTED}"))
    assert row("acme") == (
        *("1", "main", "good"),
        "loss: acme/loss; architecture: acme/*; listens: trial finished",
    )


# What a plugin is -> its source, its state, and what is said of it.
STATES = {
    "computed": (
        plugin("acme", "return list(())"),
        ("computed", "loss; read when components are looked up"),
    ),
    "hidden": ("raise SystemExit('imported')", ("computed", "read when components are looked up")),
    "a hook is misspelt": (
        plugin("acme").replace("ddrank_losses", "ddrank_loses"),
        (
            "broken",
            "it implements ddrank_loses, which is not a hook of ddrank.v1 (did you mean 'ddrank_losses'?); "
            "update acme or leave it out (--without acme)",
        ),
    ),
    "a hook has a wrong signature": (
        plugin("acme").replace("ddrank_losses()", "ddrank_losses(config)"),
        (
            "broken",
            "its hook ddrank_losses asks for config, and is given nothing; update acme or leave it out "
            "(--without acme)",
        ),
    ),
    "a target is not there": (
        plugin("acme").replace("acme:Loss", "acme:Lost"),
        ("in part", "loss: acme/loss; but acme/loss cannot be loaded from acme:Lost: acme has no 'Lost'"),
    ),
}


@pytest.mark.parametrize("case", STATES)
def test_the_state_of_a_plugin_is_found_without_importing_it(install, case):
    source, expected = STATES[case]
    module = install("acme", source)
    assert row("acme") == ("1", "main", *expected)
    assert module not in sys.modules


def test_a_plugin_for_a_future_api_is_listed(install, tmp_path):
    install("acme", plugin("acme"))
    (tmp_path / "site-packages/acme-1.2.dist-info/entry_points.txt").write_text("[ddrank.v12]\nmain = acme\n")
    why = "it needs plugin API 12, this ddrank has 1; update ddrank"
    assert row("acme") == ("12", "main", "broken", why)


def test_both_claimants_of_a_name_are_listed_with_what_is_wrong(install):
    install("acme", plugin("acme"))
    install("zeta", plugin("acme"))
    line = (
        "loss: acme/loss; loss 'acme/loss' is claimed by acme 1.2 and zeta 1.2; neither is used: uninstall "
        "one, or give --without"
    )
    assert row("acme") == row("zeta") == ("1", "main", "in part", line)
    with using(Choice(without=("zeta",))):
        assert row("acme") == ("1", "main", "good", "loss: acme/loss")


# --only, --without, DDRANK_PLUGINS


def test_without_a_choice_everything_that_is_installed_is_used(three):
    assert losses() == ["acme/loss", "beta/loss", "zeta_losses/loss"]


CHOICES = {
    ("--only", "acme"): ["acme/loss"],
    ("--only", "acme", "--only", "Zeta_Losses"): ["acme/loss", "zeta_losses/loss"],
    ("--only", "ddrank"): [],
    ("--without", "acme"): ["beta/loss", "zeta_losses/loss"],
    ("--without", "acme", "--without", "beta"): ["zeta_losses/loss"],
    ("--only", "acme", "--only", "beta", "--without", "beta"): ["acme/loss"],
}


@pytest.mark.parametrize("options", CHOICES, ids=" ".join)
def test_the_launchers_options_choose_among_distributions(capsys, three, options):
    code, out, err = said(capsys, *options, "list", "loss")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if "/" in line.split()[0]] == CHOICES[options]
    assert len(losses()) == 3


@pytest.mark.parametrize(
    ("value", "left"),
    [("", []), ("acme", ["acme/loss"]), (" beta, zeta.losses ,", ["beta/loss", "zeta_losses/loss"])],
)
def test_the_environment_chooses_among_distributions(three, monkeypatch, value, left):
    monkeypatch.setenv("DDRANK_PLUGINS", value)
    assert losses() == left


def test_an_option_comes_before_the_environment(three, monkeypatch):
    monkeypatch.setenv("DDRANK_PLUGINS", "acme")
    with using(Choice(only=("beta",))):
        assert losses() == ["beta/loss"]


def test_our_own_plugins_are_used_whatever_is_chosen(three, monkeypatch):
    everything = [entry.name for entry in default_registry().entries("loss") if "/" not in entry.name]
    monkeypatch.setenv("DDRANK_PLUGINS", "")
    assert [entry.name for entry in default_registry().entries("loss")] == everything


def test_what_is_left_out_is_neither_imported_nor_complained_about(capsys, install):
    computed = install("acme", plugin("acme", "return list(())"))
    install("broken", "def")
    assert said(capsys, "--only", "ddrank", "list", "loss")[2] == ""
    assert computed not in sys.modules


def test_what_is_left_out_is_listed_with_what_leaves_it_out(three, monkeypatch):
    with using(Choice(without=("acme",))):
        assert row("acme") == ("1", "main", "left out", "left out by --without acme")
        assert row("beta")[2] == "good"
    with using(Choice(only=("acme",))):
        assert row("beta")[2:] == ("left out", "left out by --only acme")
    monkeypatch.setenv("DDRANK_PLUGINS", "beta")
    assert row("acme")[2:] == ("left out", "left out by DDRANK_PLUGINS=beta")


def test_a_name_of_a_plugin_that_is_left_out_says_so(capsys, three):
    code, _, err = said(capsys, "--without", "acme", "show", "loss", "acme/loss")
    assert (code, err) == (
        2,
        "error: no loss 'acme/loss'; plugin main of acme 1.2 is not used: left out by --without acme\n",
    )


REFUSED = {
    ("--only", "acmee"): (
        "--only acmee: no distribution 'acmee' with plugins is installed (did you mean 'acme'?)"
    ),
    ("--without", "qqqq"): (
        "--without qqqq: no distribution 'qqqq' with plugins is installed; there are acme, beta, zeta-losses"
    ),
    ("--without", "ddrank"): "--without ddrank: its own plugins are always used; name another",
}


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_a_distribution_that_cannot_be_chosen_is_one_line(capsys, three, options):
    assert said(capsys, *options, "list", "loss") == (2, "", f"error: {REFUSED[options]}\n")


def test_the_environment_must_name_what_is_installed(monkeypatch):
    monkeypatch.setenv("DDRANK_PLUGINS", "acme")
    with pytest.raises(ConfigError) as refused:
        default_registry()
    assert str(refused.value) == (
        "DDRANK_PLUGINS=acme: no distribution 'acme' with plugins is installed; there are none beside "
        "ddrank's own"
    )
