"""The registry: names to components, and what becomes of plugins that do not work."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import pytest

from ddrank_core.config import load_run
from ddrank_core.errors import ConfigError, PluginError
from ddrank_core.plugins import installed
from ddrank_core.registry import Registry, default_registry
from ddrank_core.spec import KINDS

FOCAL = '''
from ddrank_core import ComponentSpec, component, hookimpl, parameter

@component
class Focal:
    """Train with the focal loss."""

    gamma: float = parameter("focus", default=2.0, minimum=0)

@hookimpl
def ddrank_losses():
    return [ComponentSpec("acme/focal", "acme:Focal", "Focal loss")]
'''


def manifest(body: str) -> str:
    return f"from ddrank_core import ComponentSpec, hookimpl\n\n@hookimpl\ndef ddrank_losses():\n    {body}\n"


def claim(name: str, target: str) -> str:
    return manifest(f"return [ComponentSpec({name!r}, {target!r}, 'A loss')]")


ADVICE = "; update acme or leave it out (--without acme)"
"""What every line about an installed plugin of acme ends in."""


def looked_up() -> Registry:
    """Return a registry that knows what every plugin brings, those included that must be imported for it."""
    registry = default_registry()
    registry.entries("loss")
    return registry


def test_a_third_party_component_is_found_under_its_vendor_name(install):
    install("acme", FOCAL)
    registry = default_registry()
    assert registry.problems == ()
    assert registry.find("loss", "acme/focal").owner == "acme 1.2"
    assert registry.load("loss", "acme/focal")(gamma=1.0).gamma == 1.0


def test_bare_names_come_first_in_a_listing(install):
    install("acme", FOCAL)
    assert [entry.name for entry in default_registry().entries("loss")][-1] == "acme/focal"


def test_every_kind_has_a_first_party_component():
    registry = default_registry()
    assert [kind for kind in KINDS if not registry.entries(kind)] == []


# What is wrong with a plugin -> its module, and the one line that says so.
FAULTS = {
    "its import fails": (
        "raise ImportError('no backend\\nsecond line')",
        "its import failed: ImportError: no backend",
    ),
    "its import exits": ("raise SystemExit(3)", "its import failed: SystemExit: 3"),
    "it has a syntax error": (
        "def",
        "acme cannot be imported: SyntaxError: invalid syntax (acme.py, line 1)",
    ),
    "it needs a module that is not there": (
        "import no_such_module_at_all",
        "its import failed: ModuleNotFoundError: No module named 'no_such_module_at_all'",
    ),
    "a hook has a wrong signature": (
        "from ddrank_core import hookimpl\n@hookimpl\ndef ddrank_losses(config): return []",
        "its hook ddrank_losses asks for config, and is given nothing",
    ),
    "a hook that only an import tells has a wrong signature": (
        "from ddrank_core import hookimpl\nddrank_methods = None\n"
        "@hookimpl\ndef ddrank_losses(config): return []",
        "its hook ddrank_losses does not match the specification: Argument(s) {'config'} are declared in the "
        "hookimpl but can not be found in the hookspec",
    ),
    "a hook is misspelt": (
        "from ddrank_core import hookimpl\n@hookimpl\ndef ddrank_loses(): return []",
        "it implements ddrank_loses, which is not a hook of ddrank.v1 (did you mean 'ddrank_losses'?)",
    ),
    "a hook is not marked": (
        "def ddrank_losses(): return []",
        "it implements no hook; mark its functions with @ddrank_core.hookimpl",
    ),
    "a hook raises": (
        manifest("raise RuntimeError('no licence')"),
        "its hook ddrank_losses failed: RuntimeError: no licence",
    ),
    "a hook exits": (manifest("raise SystemExit"), "its hook ddrank_losses failed: SystemExit"),
    "a hook returns nothing": (
        manifest("pass"),
        "its hook ddrank_losses must return a list of ComponentSpec",
    ),
    "a hook returns a number": (
        manifest("return 5"),
        "its hook ddrank_losses must return a list of ComponentSpec",
    ),
    "a hook returns text": (
        manifest("return 'acme/focal'"),
        "its hook ddrank_losses must return a list of ComponentSpec",
    ),
    "a hook returns classes": (
        manifest("return [int]"),
        "its hook ddrank_losses returned <class 'int'>, not a ComponentSpec",
    ),
    "a hook is a generator that raises": (
        manifest("yield ComponentSpec('acme/a', 'acme:A', 'A'); 1 / 0"),
        "its hook ddrank_losses failed: ZeroDivisionError: division by zero",
    ),
    "a name is not text": (
        manifest("return [ComponentSpec(None, 'acme:A', 'A')]"),
        "its hook ddrank_losses returned ComponentSpec(name=None, target='acme:A', summary='A'), "
        "whose fields are not all text",
    ),
    "a name is bare": (
        claim("focal", "acme:Focal"),
        "'focal' is a bare name, which only ddrank may use; call it 'vendor/focal'",
    ),
    "a name has spaces": (
        claim("acme/my loss", "acme:Focal"),
        "'acme/my loss' is not a component's name; it must look like 'vendor/name'",
    ),
    "a target names no class": (
        claim("acme/focal", "acme.Focal"),
        "the target 'acme.Focal' of 'acme/focal' is not of the form 'module:Class'",
    ),
}


READ_FROM_SOURCE = (
    "it has a syntax error",
    "a hook has a wrong signature",
    "a hook is misspelt",
    "a hook is not marked",
    "a hook returns nothing",
    "a hook returns a number",
    "a hook returns text",
    "a name is not text",
    "a name is bare",
    "a name has spaces",
    "a target names no class",
)
"""What is found without importing the plugin."""


@pytest.mark.parametrize("case", FAULTS)
def test_a_broken_plugin_is_one_line_and_the_rest_keeps_working(install, case):
    source, reason = FAULTS[case]
    install("acme", source)
    install("busy", FOCAL.replace("acme", "busy"))
    registry = looked_up()
    assert registry.problems == (f"plugin main of acme 1.2 is not used: {reason}{ADVICE}",)
    assert registry.load("loss", "ce").__name__ == "CrossEntropy"
    assert registry.load("loss", "busy/focal").__name__ == "Focal"


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_that_the_source_shows_is_found_without_an_import(install, case):
    source, reason = FAULTS[case]
    module = install("acme", source)
    found = default_registry().problems
    if case in READ_FROM_SOURCE:
        assert found == (f"plugin main of acme 1.2 is not used: {reason}{ADVICE}",)
    else:
        assert found == ()
    assert module not in sys.modules


def test_an_entry_point_that_names_nothing_is_one_line(install):
    install("acme", FOCAL, value="acme:missing")
    assert default_registry().problems == (
        f"plugin main of acme 1.2 is not used: acme has no 'missing'{ADVICE}",
    )


def test_an_entry_point_that_names_no_module_is_one_line(install):
    install("acme", FOCAL, value="acme_gone.plugin")
    assert default_registry().problems == (
        f"plugin main of acme 1.2 is not used: there is no module 'acme_gone.plugin'{ADVICE}",
    )


@pytest.mark.parametrize(("api", "advice"), [(2, "update ddrank"), (0, "update acme")])
def test_a_plugin_for_another_api_version_is_one_line(install, tmp_path, api, advice):
    module = install("acme", FOCAL)
    entry_points(tmp_path, f"[ddrank.v{api}]\nmain = acme\n")
    registry = looked_up()
    line = f"plugin main of acme 1.2 is not used: it needs plugin API {api}, this ddrank has 1; {advice}"
    assert registry.problems == (line,)
    with pytest.raises(PluginError) as refused:
        registry.load("loss", "acme/focal")
    assert str(refused.value) == f"no loss 'acme/focal'; {line}"
    assert module not in sys.modules


def test_of_a_plugin_for_several_api_versions_the_one_for_this_is_used(install, tmp_path):
    install("acme", FOCAL)
    entry_points(tmp_path, "[ddrank.v2]\nmain = acme_of_tomorrow\n\n[ddrank.v1]\nmain = acme\n")
    assert default_registry().problems == ()
    assert default_registry().find("loss", "acme/focal").owner == "acme 1.2"


def entry_points(tmp_path: Path, text: str) -> None:
    (tmp_path / "site-packages/acme-1.2.dist-info/entry_points.txt").write_text(text)


def test_a_plugin_that_breaks_in_a_later_hook_is_out_as_a_whole(install):
    install("acme", FOCAL + "\n@hookimpl\ndef ddrank_methods():\n    raise OSError('disk')\n")
    registry = looked_up()
    assert registry.problems == (
        f"plugin main of acme 1.2 is not used: its hook ddrank_methods failed: OSError: disk{ADVICE}",
    )
    assert "acme/focal" not in [entry.name for entry in registry.entries("loss")]


# What is imported, and when


COMPUTED = FOCAL.replace("return [", "return list([").replace('loss")]', 'loss")])')
"""A plugin whose components only an import tells."""


def test_a_plugin_is_not_imported_to_list_and_find_its_components(install):
    module = install("acme", FOCAL)
    registry = looked_up()
    assert registry.find("loss", "acme/focal").spec.target == "acme:Focal"
    assert registry.problems == ()
    assert module not in sys.modules
    registry.load("loss", "acme/focal")
    assert module in sys.modules


def test_what_only_an_import_tells_is_imported_for_a_vendors_name_of_its_kind(install):
    module = install("acme", COMPUTED)
    registry = default_registry()
    registry.load("loss", "ce")
    registry.find("dataset", "cifar10")
    assert module not in sys.modules
    assert registry.entries("architecture")
    assert module not in sys.modules
    assert registry.find("loss", "acme/focal").owner == "acme 1.2"
    assert module in sys.modules


def test_a_name_that_an_import_shows_to_be_claimed_twice_is_refused(install):
    install("acme", FOCAL)
    install("zeta", COMPUTED.replace("acme:", "zeta:"), version="2.0")
    registry = default_registry()
    with pytest.raises(PluginError, match=r"claimed by acme 1\.2 and zeta 2\.0"):
        registry.find("loss", "acme/focal")


def test_a_hook_may_be_a_generator(install):
    install("acme", FOCAL.replace("return [", "yield from ["))
    assert default_registry().load("loss", "acme/focal").__name__ == "Focal"


def test_a_plugin_may_be_an_object_and_implement_a_hook_of_a_later_version(install):
    source = """
from ddrank_core import ComponentSpec, hookimpl

class Plugin:
    @hookimpl
    def ddrank_losses(self):
        return [ComponentSpec("acme/focal", "acme:Focal", "Focal loss")]

    @hookimpl(optionalhook=True)
    def ddrank_telescopes(self):
        return []

plugin = Plugin()
"""
    install("acme", source, value="acme:plugin")
    registry = default_registry()
    assert registry.problems == ()
    assert registry.find("loss", "acme/focal").owner == "acme 1.2"


def test_a_name_that_two_distributions_claim_is_refused_and_both_are_named(install):
    install("acme", FOCAL)
    install("zeta", FOCAL, version="2.0")
    registry = default_registry()
    line = (
        "loss 'acme/focal' is claimed by acme 1.2 and zeta 2.0; neither is used: uninstall one, or give "
        "--without"
    )
    assert registry.problems == (line,)
    with pytest.raises(PluginError) as refused:
        registry.load("loss", "acme/focal")
    assert str(refused.value) == line


def test_a_name_that_three_distributions_claim_names_all_three(install):
    for name in ("acme", "beta", "zeta"):
        install(name, FOCAL)
    assert default_registry().problems == (
        "loss 'acme/focal' is claimed by acme 1.2 and beta 1.2 and zeta 1.2; neither is used: uninstall one, "
        "or give --without",
    )


def test_a_name_that_one_distribution_claims_twice_is_refused(install):
    spec = 'ComponentSpec("acme/focal", "acme:Focal", "Focal loss")'
    install("acme", FOCAL.replace(f"[{spec}]", f"[{spec}, {spec}]"))
    assert default_registry().problems == (
        "loss 'acme/focal' is claimed 2 times by acme 1.2; it is not used, update or reinstall acme",
    )


def test_a_third_party_cannot_take_a_name_in_a_first_party_family(install):
    source = claim("timm/resnet18", "acme:Net").replace("ddrank_losses", "ddrank_architectures")
    install("acme", source)
    registry = default_registry()
    owner = registry.find("architecture", "timm/resnet34").owner
    assert registry.problems == (
        f"architecture 'timm/resnet18' is claimed by {owner} (with timm/*) and acme 1.2; neither is used: "
        "uninstall one, or give --without",
    )


# What is wrong with a target -> the plugin's module, and the one line that says so.
TARGETS = {
    "the module is not there": (
        claim("acme/focal", "acme_gone:Focal"),
        "cannot be loaded from acme_gone:Focal: ModuleNotFoundError: No module named 'acme_gone'",
    ),
    "the class is not there": (
        claim("acme/focal", "acme:Focal"),
        "cannot be loaded from acme:Focal: AttributeError: module 'acme' has no attribute 'Focal'",
    ),
}
NOT_COMPONENTS = {
    "a function": (
        claim("acme/focal", "acme:focal") + "\ndef focal(): ...",
        "acme:focal is not a class made with ddrank_core.component",
    ),
    "a plain class": (
        claim("acme/focal", "acme:Focal") + "\nclass Focal: ...",
        "acme:Focal is not a class made with ddrank_core.component",
    ),
    "a class whose annotations cannot be resolved": (
        "from __future__ import annotations\nfrom ddrank_core import component, parameter\n"
        + claim("acme/focal", "acme:Focal")
        + "\n@component\nclass Focal:\n    weight: Tensor = parameter('w', default=None)",
        "acme:Focal has a field whose type cannot be resolved: NameError: name 'Tensor' is not defined",
    ),
    "a class with a parameter named use": (
        "from ddrank_core import component, parameter\n"
        + claim("acme/focal", "acme:Focal")
        + "\n@component\nclass Focal:\n    use: str = parameter('u', default='')",
        "acme:Focal has a parameter 'use', which in a config names the component",
    ),
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_target_that_cannot_be_imported_is_one_line_when_it_is_used(install, case):
    source, reason = TARGETS[case]
    install("acme", source)
    registry = default_registry()
    assert registry.problems == ()
    with pytest.raises(PluginError) as refused:
        registry.load("loss", "acme/focal")
    assert str(refused.value) == f"loss 'acme/focal' of acme 1.2 {reason}; update or reinstall acme"


@pytest.mark.parametrize("case", NOT_COMPONENTS)
def test_a_target_that_is_no_component_is_one_line_when_it_is_used(install, case):
    source, reason = NOT_COMPONENTS[case]
    install("acme", source)
    with pytest.raises(PluginError) as refused:
        default_registry().load("loss", "acme/focal")
    assert str(refused.value) == f"loss 'acme/focal' of acme 1.2: {reason}; update or reinstall acme"


FAMILY = """
from ddrank_core import ComponentSpec, component, hookimpl

@hookimpl
def ddrank_losses():
    return [ComponentSpec("acme/*", "acme:family", "All losses of acme")]

@component
class Focal: ...

class Family:
    def members(self):
        return ["focal", "square"]

    def component(self, member):
        return {"focal": Focal}[member]

family = Family()
"""


def test_a_family_gives_the_component_of_a_member(install):
    install("acme", FAMILY)
    registry = default_registry()
    assert registry.find("loss", "acme/focal").name == "acme/*"
    assert registry.load("loss", "acme/focal").__name__ == "Focal"
    assert registry.members(registry.find("loss", "acme/focal")) == ("acme/focal", "acme/square")


# A name in the family, and the line that refuses it.
MEMBERS = {
    "acme/fokal": "no loss 'acme/fokal' (did you mean 'acme/focal'?); see ddrank list loss 'acme/*'",
    "acme/*": "no loss 'acme/*' (did you mean 'acme/focal'?); see ddrank list loss 'acme/*'",
    "acme/square": "loss 'acme/square' of acme 1.2 fails: KeyError: 'square'; update or reinstall acme",
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_a_family_cannot_give_is_one_line(install, name):
    install("acme", FAMILY)
    with pytest.raises(PluginError) as refused:
        default_registry().load("loss", name)
    assert str(refused.value) == MEMBERS[name]


def test_a_family_that_cannot_list_its_members_is_one_line(install):
    install("acme", FAMILY.replace('return ["focal", "square"]', "raise OSError('no sources')"))
    with pytest.raises(PluginError) as refused:
        default_registry().load("loss", "acme/focal")
    assert str(refused.value) == (
        "loss 'acme/*' of acme 1.2 cannot list its members: OSError: no sources; update or reinstall acme"
    )


# Kind and name that nobody brings -> the line.
UNKNOWN = {
    ("loss", "kll"): "no loss 'kll' (did you mean 'kl'?); see 'ddrank list loss'",
    ("loss", "qqqqqq"): "no loss 'qqqqqq'; see 'ddrank list loss'",
    ("loss", "convnet"): "'convnet' is an architecture, not a loss; see 'ddrank list loss'",
    ("augmentation", "ce"): "'ce' is a loss, not an augmentation; see 'ddrank list augmentation'",
    ("schedule", "cosin"): "no schedule 'cosin' (did you mean 'cosine'?); see 'ddrank list schedule'",
}


@pytest.mark.parametrize(("kind", "name"), UNKNOWN)
def test_an_unknown_name_is_refused_with_the_nearest(kind, name):
    with pytest.raises(PluginError) as refused:
        default_registry().load(kind, name)
    assert str(refused.value) == UNKNOWN[kind, name]


CONFIG = """
dataset: digits
distilled: {path: set.safetensors}
student: convnet
recipe:
  labels: hard
  loss: LOSS
  optimizer: sgd
  schedule: constant
  epochs: 1
full_data: {accuracy: 0.9, source: measured}
protocol: strict
"""


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            "raise ImportError('no backend')",
            "no loss 'acme/focal'; plugin main of acme 1.2 is not used: its import failed: ImportError: "
            f"no backend{ADVICE}",
        ),
        (
            claim("acme/focal", "acme_gone:Focal"),
            "loss 'acme/focal' of acme 1.2 cannot be loaded from acme_gone:Focal: ModuleNotFoundError: "
            "No module named 'acme_gone'; update or reinstall acme",
        ),
    ],
    ids=["the plugin", "the target"],
)
def test_a_config_that_needs_a_broken_component_stops_with_that_line(install, tmp_path: Path, source, line):
    install("acme", source)
    (tmp_path / "set.safetensors").touch()
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG.replace("LOSS", "acme/focal"))
    with pytest.raises(ConfigError) as refused:
        load_run(config, default_registry())
    assert str(refused.value) == f"{config}: recipe.loss: {line}"
    config.write_text(CONFIG.replace("LOSS", "ce"))
    assert load_run(config, default_registry()).recipe.loss.use == "ce"


def test_a_broken_third_party_plugin_is_not_blamed_for_a_misspelt_bare_name(install):
    install("acme", "raise ImportError('no backend')")
    with pytest.raises(PluginError) as refused:
        default_registry().load("loss", "kll")
    assert str(refused.value) == "no loss 'kll' (did you mean 'kl'?); see 'ddrank list loss'"


def test_installed_plugins_are_read_without_importing_them(install):
    install("acme", "raise SystemExit('imported')")
    found = [(p.distribution, p.version, p.name, p.value) for p in installed() if not p.is_first_party]
    assert found == [("acme", "1.2", "main", "acme")]


def test_of_a_distribution_that_is_on_the_path_twice_the_first_is_listed(install, tmp_path, monkeypatch):
    install("acme", FOCAL)
    second = tmp_path / "second"
    (second / "acme-1.1.dist-info").mkdir(parents=True)
    (second / "acme-1.1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.1\n")
    (second / "acme-1.1.dist-info/entry_points.txt").write_text("[ddrank.v1]\nmain = acme\n")
    monkeypatch.syspath_prepend(second)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    assert [str(p) for p in installed() if not p.is_first_party] == ["plugin main of acme 1.2"]


def test_a_malformed_entry_points_file_of_a_stranger_is_passed_over(install, tmp_path):
    install("acme", FOCAL)
    stranger = tmp_path / "site-packages/stranger-1.0.dist-info"
    stranger.mkdir()
    (stranger / "METADATA").write_text("Metadata-Version: 2.1\n")
    (stranger / "entry_points.txt").write_text("[console_scripts]\nno equals sign\n")
    assert default_registry().find("loss", "acme/focal").owner == "acme 1.2"


def test_a_distribution_without_name_and_version_is_still_listed(install, tmp_path):
    nameless = tmp_path / "site-packages/nameless-1.0.dist-info"
    nameless.mkdir()
    (nameless / "entry_points.txt").write_text("[ddrank.v1]\nmain = nameless\n")
    assert [str(p) for p in installed() if not p.is_first_party] == [
        "plugin main of an unnamed distribution (no version)"
    ]


def test_built_in_components_have_documented_parameters():
    registry = default_registry()
    for kind in ("optimizer", "schedule", "protocol"):
        for entry in registry.entries(kind):
            cls = registry.load(kind, entry.name)
            assert all(field.metadata["doc"] for field in attrs.fields(cls)), entry.name


def test_a_first_party_plugin_can_be_taken_out():
    registry = default_registry()
    plugin = next(p for p in installed() if p.name == "progress")
    assert registry.host.uses(plugin)
    registry.host.without("progress")
    assert not registry.host.uses(plugin)
    assert isinstance(registry, Registry)
