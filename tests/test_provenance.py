"""Whose a component is: what the record says of those of other distributions."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest

from ddrank_core.config import RunConfig, load_run
from ddrank_core.provenance import source_digest
from ddrank_core.registry import default_registry
from ddrank_core.report.record import components_of

PACKAGE = {
    "__init__.py": """
from ddrank_core import ComponentSpec, hookimpl

@hookimpl
def ddrank_losses():
    return [
        ComponentSpec("acme/focal", "acme_parts.losses.focal:Focal", "Focal loss"),
        ComponentSpec("acme/focal-5", "acme_parts.losses.focal:Focal", "Focal loss", preset={"gamma": 5.0}),
    ]

@hookimpl
def ddrank_architectures():
    return [ComponentSpec("acme/*", "acme_parts.nets:nets", "Nets")]
""",
    "losses/__init__.py": "",
    "losses/focal.py": """
from ddrank_core import component, parameter

@component
class Focal:
    gamma: float = parameter("focus", default=2.0)
    alpha: tuple[float, ...] | None = parameter("weights", default=None)
""",
    "nets.py": """
from ddrank_core import component, parameter

@component
class Net:
    width: int = parameter("channels", default=8)

class Nets:
    def members(self):
        return ["small"]

    def component(self, member):
        return Net

nets = Nets()
""",
}

CONFIG = """
dataset: digits
distilled: {path: set.safetensors}
student: {use: acme/small, width: 4}
recipe:
  labels: hard
  loss: {use: LOSS, alpha: [1, 2]}
  optimizer: sgd
  schedule: {use: warmup, epochs: 1, then: {use: step, step_size: 3}}
  epochs: 5
full_data: {accuracy: 0.9, source: measured}
protocol: strict
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The distribution acme-parts, installed as a package; what is imported of it is forgotten afterwards."""
    site = tmp_path / "site"
    for name, source in PACKAGE.items():
        file = site / "acme_parts" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    info = site / "acme_parts-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-parts\nVersion: 3.1\n\nName: no\n")
    (info / "entry_points.txt").write_text("[ddrank.v1]\nacme = acme_parts\n")
    monkeypatch.syspath_prepend(site)
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("acme_parts", "vendors"):
            del sys.modules[name]


def digest(folder: Path) -> str:
    """Return the SHA-256 of a package's sources: each one's name and its bytes, in the order of the names."""
    whole = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        whole.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return whole.hexdigest()


def loaded(folder: Path, loss: str = "acme/focal") -> RunConfig:
    (folder / "set.safetensors").touch()
    path = folder / "run.yaml"
    path.write_text(CONFIG.replace("LOSS", loss))
    return load_run(path, default_registry())


def of_field(config: RunConfig, field: str):
    return next(found for found in components_of(config) if found["field"] == field)


def test_of_a_component_of_another_distribution_everything_is_recorded(site, tmp_path):
    assert of_field(loaded(tmp_path), "recipe.loss") == {
        "field": "recipe.loss",
        "kind": "loss",
        "name": "acme/focal",
        "distribution": "acme-parts",
        "version": "3.1",
        "from_file": False,
        "target": "acme_parts.losses.focal:Focal",
        "source_digest": digest(site / "acme_parts"),
        "parameters": {"gamma": 2.0, "alpha": [1.0, 2.0]},
        "given": ["alpha"],
    }


def test_what_a_name_sets_is_among_the_parameters_and_not_among_those_given(site, tmp_path):
    found = of_field(loaded(tmp_path, "acme/focal-5"), "recipe.loss")
    assert (found["name"], found["parameters"]["gamma"], found["given"]) == ("acme/focal-5", 5.0, ["alpha"])


def test_a_member_of_a_family_is_recorded_with_the_familys_target(site, tmp_path):
    found = of_field(loaded(tmp_path), "student")
    assert (found["name"], found["target"]) == ("acme/small", "acme_parts.nets:nets")
    assert (found["distribution"], found["version"]) == ("acme-parts", "3.1")
    assert found["source_digest"] == digest(site / "acme_parts")
    assert (found["parameters"], found["given"]) == ({"width": 4}, ["width"])


def test_every_component_of_a_config_is_recorded_those_inside_others_too(site, tmp_path):
    assert [(found["field"], found["distribution"]) for found in components_of(loaded(tmp_path))] == [
        ("dataset", "ddrank"),
        ("student", "acme-parts"),
        ("recipe.labels", "ddrank"),
        ("recipe.loss", "acme-parts"),
        ("recipe.optimizer", "ddrank"),
        ("recipe.schedule", "ddrank"),
        ("recipe.schedule.then", "ddrank"),
        ("protocol", "ddrank"),
    ]


def test_sources_that_a_component_may_use_are_in_its_digest(site, tmp_path):
    before = digest(site / "acme_parts")
    (site / "acme_parts/helpers.py").write_text("LIMIT = 1\n")
    found = of_field(loaded(tmp_path), "recipe.loss")["source_digest"]
    assert found == digest(site / "acme_parts") != before


@pytest.mark.parametrize("module", ["vendors.acme.focal", "vendors.lone"])
def test_of_a_namespace_that_distributions_share_only_ones_own_sources_count(site, module):
    own = site.joinpath(*module.split(".")).with_suffix(".py")
    own.parent.mkdir(parents=True)
    own.write_text("class Focal: ...\n")
    if module == "vendors.acme.focal":
        (own.parent / "__init__.py").write_text("")
    (site / "vendors/other").mkdir()
    (site / "vendors/other/__init__.py").write_text("OTHER = 1\n")
    importlib.invalidate_caches()
    found = source_digest(importlib.import_module(module).Focal)
    alone = hashlib.sha256(own.read_bytes()).hexdigest()
    assert found == (digest(own.parent) if own.parent.name == "acme" else alone)


def test_of_the_engine_only_what_trains_counts():
    """The launcher and the pages change more often, and no number with them."""
    import ddrank_core.engine.optimizers as optimizers

    assert source_digest(optimizers.SGD) == digest(Path(optimizers.__file__).parent)
