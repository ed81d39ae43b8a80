"""The conformance kit: each check catches what breaks its part of the contract, and nothing else does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from faulty_components import FAULTS, GOOD, REFERENCES

from ddrank_core.spec import HOOKS
from ddrank_core.testing.case import ContractBroken
from ddrank_core.testing.rules import CLASS_IS_LIGHT, RULES, TARGET_RESOLVES
from ddrank_core.testing.suite import Said, UsageError, checks_of

pytest_plugins = ["pytester"]

HEAVY = "import numpy\nfrom faulty_components import Loss\n"
ELSEWHERE = {
    "faulty/Missing": ("loss", "faulty_components:Missing", TARGET_RESOLVES),
    "faulty/Heavy": ("loss", "faulty_heavy:Loss", CLASS_IS_LIGHT),
}
"""Name -> kind, target and the check that catches it, of what is no class of `faulty_components`."""

SAID = Said(
    image_shapes={"faulty/NetworkOfEight": [(3, 8, 8), (3, 4, 4)], "good/Network": [(3, 8, 8), (1, 5, 7)]},
    references={f"good/{right}": function for right, _, function in REFERENCES}
    | {f"faulty/{wrong}": function for _, wrong, function in REFERENCES},
    examples={"good/Loss": [{"scale": 2.0}], "faulty/LossIgnoresScale": [{"scale": 2.0}]},
)


def manifest(components: Mapping[str, tuple[str, str]]) -> str:
    """Return the source of a module that registers components: name -> kind and target."""
    lines = ["from ddrank_core import ComponentSpec, hookimpl"]
    for kind, hook in HOOKS.items():
        specs = [
            f"ComponentSpec({name!r}, {target!r}, 'For tests')"
            for name, (of, target) in components.items()
            if of == kind
        ]
        lines += ["", "", "@hookimpl", f"def {hook}():", f"    return [{', '.join(specs)}]"]
    return "\n".join(lines) + "\n"


def install_in(site: Path, distribution: str, source: str) -> None:
    module = distribution.replace("-", "_")
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[ddrank.v1]\nmain = {module}\n")


def broken(checks) -> dict[str, dict[str, str]]:
    """Run checks; return for each component those that it does not pass, and their messages."""
    found: dict[str, dict[str, str]] = {}
    for check in checks:
        lines = found.setdefault(check.of, {})
        try:
            check.run()
        except ContractBroken as error:
            lines[check.title] = str(error)
        except pytest.skip.Exception:
            continue
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Give what every check says of every good and faulty component, in one distribution."""
    site = tmp_path_factory.mktemp("site-packages")
    here = {name: (kind, f"faulty_components:{cls.__name__}") for name, (kind, cls) in GOOD.items()}
    here |= {name: (kind, f"faulty_components:{cls.__name__}") for name, (kind, cls, _) in FAULTS.items()}
    here |= {name: (kind, target) for name, (kind, target, _) in ELSEWHERE.items()}
    install_in(site, "ddrank-faulty", manifest(here))
    (site / "faulty_heavy.py").write_text(HEAVY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        found = broken(checks_of("ddrank-faulty", SAID))
    for module in ("ddrank_faulty", "faulty_heavy"):
        sys.modules.pop(module, None)
    return found


CAUGHT = {name: check for name, (_, _, check) in (*FAULTS.items(), *ELSEWHERE.items())}


@pytest.mark.parametrize("name", GOOD)
def test_a_component_that_keeps_the_contract_passes_every_check(results, name):
    assert results[name] == {}


@pytest.mark.parametrize("name", CAUGHT)
def test_a_component_that_breaks_the_contract_is_caught_by_the_check_of_that_part_alone(results, name):
    assert {CAUGHT[name]} == set(results[name]), results[name]


@pytest.mark.parametrize("name", CAUGHT)
def test_a_message_names_the_component_and_is_short(results, name):
    (message,) = results[name].values()
    assert message.startswith(f"{name}")
    assert 40 < len(message) < 600
    assert message.count("\n") <= 1


def test_every_check_of_every_kind_has_a_component_that_it_catches():
    general = {CLASS_IS_LIGHT} | {rule.title for rule in RULES["optimizer"]}
    caught = {(kind, check) for kind, _, check in (*FAULTS.values(), *ELSEWHERE.values())}
    asked = {(kind, rule.title) for kind in HOOKS for rule in RULES[kind]}
    assert general <= {check for _, check in caught}
    assert {one for one in asked if one[1] not in general} == {one for one in caught if one[1] not in general}


def test_the_distribution_itself_passes(results):
    assert results["ddrank-faulty"] == {}


# -- what is checked of a distribution ---------------------------------------------------------

LOSS = {"acme/loss": ("loss", "faulty_components:Loss")}


def of_distribution(title: str) -> str:
    """Return what a check of the distribution acme says."""
    checks = [check for check in checks_of("acme", Said()) if check.title == title]
    return broken(checks)["acme"][title]


def test_a_heavy_manifest_is_caught(install):
    install("acme", "import numpy\n" + manifest(LOSS))
    line = of_distribution("its manifests import nothing heavy")
    assert line == (
        "the entry point main imports numpy; a manifest names its targets as text and imports nothing heavy"
    )


def test_a_plugin_that_does_not_load_is_caught(install):
    install("acme", manifest(LOSS) + "\nraise ImportError('no backend')\n")
    assert "ImportError: no backend" in of_distribution("its plugins load")


def test_a_name_that_is_claimed_twice_is_caught(install):
    install("acme", manifest(LOSS))
    install("zeta", manifest(LOSS))
    assert "claimed by acme 1.2 and zeta 1.2" in of_distribution("its plugins load")


def test_a_distribution_may_be_written_as_pip_writes_it(install):
    install("acme-labs", manifest(LOSS))
    assert [str(check) for check in checks_of("Acme_Labs", Said())] == [
        str(check).replace("acme-labs", "Acme_Labs") for check in checks_of("acme-labs", Said())
    ]


def test_a_name_of_two_kinds_is_told_apart_by_its_kind(install):
    install(
        "acme",
        manifest({"acme/one": ("loss", "faulty_components:Loss")}).replace(
            "def ddrank_augmentations():\n    return []",
            "def ddrank_augmentations():\n"
            "    return [ComponentSpec('acme/one', 'faulty_components:Flip', 'Flip')]",
        ),
    )
    labels = {check.of for check in checks_of("acme", Said())}
    assert {"acme", "loss acme/one", "augmentation acme/one"} == labels


def test_a_short_name_of_a_component_is_not_worked_twice(install):
    short = "ComponentSpec('acme/loss-1', 'faulty_components:Loss', 'Short', preset={'scale': 1.0})"
    other = "ComponentSpec('acme/loss-2', 'faulty_components:Loss', 'Short', preset={'scale': 2.0})"
    install("acme", manifest(LOSS).replace("'For tests')]", f"'For tests'), {short}, {other}]"))
    checks = checks_of("acme", Said())
    count = {label: len([check for check in checks if check.of == label]) for label in {c.of for c in checks}}
    of_name = [rule for rule in RULES["loss"] if rule.once_per == "name"]
    # That its class is light comes on top.
    assert count["acme/loss-1"] == count["acme/loss-2"] == len(of_name) + 1 < count["acme/loss"]
    assert broken(checks) == {label: {} for label in count}


# -- what the kit is asked ---------------------------------------------------------------------

ASKED_WRONGLY: Mapping[str, tuple[str, Said, str]] = {
    "not installed": ("no-such", Said(), "no-such is not installed here, or has no entry point in the group"),
    "no such component": (
        "acme",
        Said(examples={"acme/lose": [{}]}),
        "examples: there is no component 'acme/lose' (did you mean 'acme/loss'?)",
    ),
    "no such check": (
        "acme",
        Said(expected_failures={("acme/loss", "trains in a cohor"): "it is slow"}),
        "expected_failures: acme/loss has no check 'trains in a cohor' (did you mean 'trains in a cohort'?)",
    ),
    "a parameter is missing": (
        "acme",
        Said(),
        "acme/needy needs power; give examples={'acme/needy': [{'power': ...}]}",
    ),
}


@pytest.mark.parametrize("case", ASKED_WRONGLY)
def test_what_the_kit_is_asked_wrongly_is_one_line(install, case):
    distribution, said, line = ASKED_WRONGLY[case]
    needy = {"acme/needy": ("loss", "acme:Needy")} if "missing" in case else {}
    install("acme", manifest({**LOSS, **needy}) + NEEDY)
    with pytest.raises(UsageError) as refused:
        checks_of(distribution, said)
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


NEEDY = '''

from ddrank_core import component, parameter


@component
class Needy:
    """A loss."""

    power: float = parameter("of nothing")

    def __call__(self, logits, targets):
        return logits.sum()
'''

# -- as a test of pytest -----------------------------------------------------------------------

TESTED = {
    "acme/loss": ("loss", "faulty_components:Loss"),
    "acme/sums": ("loss", "faulty_components:LossSums"),
}


@pytest.fixture
def contract(install, pytester, results) -> Callable[..., pytest.RunResult]:
    """Give a function that runs a test file of the distribution acme.

    It runs in this process, which by then has imported all that the checks import: pytester unloads what is
    new, and extension modules cannot be loaded twice.
    """

    def run(arguments: str, *options: str) -> pytest.RunResult:
        install("acme", manifest(TESTED))
        pytester.makepyfile(
            "from ddrank_core.testing import conformance_tests\n"
            f"test_contract = conformance_tests('acme', {arguments})\n"
        )
        return pytester.runpytest("-p", "no:cacheprovider", *options)

    return run


SUMS = "('acme/sums', 'is a mean over the batch'): 'it sums'"


def total(result: pytest.RunResult) -> int:
    """Return how many checks the kit says that there are."""
    return int(re.search(r"acme: (\d+) checks of 2 components", result.stdout.str()).group(1))


def test_a_broken_contract_fails_one_test_with_its_message_and_no_traceback(contract):
    result = contract("checks=1", "-k", "mean or checks")
    count = total(result)
    result.assert_outcomes(failed=2, passed=1, deselected=count - 3)
    result.stdout.fnmatch_lines(
        [
            "acme/sums: is * for hard labels, and * for the same images each twice; a loss is the mean *",
            f"there are {count} checks, and 1 were expected; if that is right, write checks={count}",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*suite.py*")


def test_an_expected_failure_is_shown_with_its_reason_and_fails_nothing(contract):
    first = contract(f"checks=1, expected_failures={{{SUMS}}}", "-rx")
    count = total(first)
    first.assert_outcomes(xfailed=1, failed=1, passed=count - 2)
    first.stdout.fnmatch_lines(["XFAIL *acme/sums: is a mean over the batch* - it sums*"])


def test_an_expected_failure_that_passes_is_a_failure(contract):
    wrong = "('acme/loss', 'is a mean over the batch'): 'it sums'"
    result = contract(f"checks=1, expected_failures={{{wrong}}}", "-k", "acme/loss and mean")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["*XPASS(strict)* it sums*"])


def test_the_number_of_checks_is_printed_and_held(contract, pytester):
    count = total(contract("checks=0", "-k", "there"))
    (pytester.path / "test_right.py").write_text(
        "from ddrank_core.testing import conformance_tests\n"
        f"test_contract = conformance_tests('acme', checks={count})\n"
    )
    result = pytester.runpytest("-p", "no:cacheprovider", "-k", "there", "test_right.py")
    assert result.parseoutcomes()["passed"] == 1
    assert total(result) == count


def test_a_distribution_that_is_not_installed_is_one_line_of_collection(pytester):
    pytester.makepyfile(
        "from ddrank_core.testing import conformance_tests\n"
        "test_contract = conformance_tests('no-such', checks=1)\n"
    )
    result = pytester.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["no-such is not installed here*install it first, with 'pip install -e .'"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_missing_pytest_is_one_clear_line():
    script = "import sys; sys.modules['pytest'] = None; import ddrank_core.testing"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: ddrank_core.testing needs pytest, which is not installed; "
        "run 'pip install pytest'"
    )
