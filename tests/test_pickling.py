"""Components between processes: they travel as names with parameters and are made again on arrival."""

from __future__ import annotations

import hashlib
import pickle
import pickletools
from pathlib import Path
from typing import Any

import pytest

from ddrank_core.errors import PluginError
from ddrank_core.plugin_choice import Choice, using
from ddrank_core.registry import ALL_KINDS, default_registry
from ddrank_core.structure import Chosen, Structurer, plain

FOCAL = '''
from ddrank_core import ComponentSpec, component, hookimpl, parameter

@hookimpl
def ddrank_losses():
    return [ComponentSpec("acme/focal", "acme:Focal", "Focal loss")]

@component
class Focal:
    """Focal loss."""

    gamma: float = parameter("focus on hard images", default=2.0)

    def __call__(self, logits, targets):
        return logits.mean()
'''

ONE_OF_EACH: dict[str, Any] = {
    "loss": {"use": "kl", "temperature": 3.5},
    "label-mapping": "hard",
    "augmentation": {"use": "dsa"},
    "architecture": {"use": "convnet", "depth": 2, "width": 16},
    "dataset": {"use": "arrays", "path": "real.npz"},
    "method": "random",
    "optimizer": {"use": "sgd", "momentum": 0.5},
    "schedule": {"use": "warmup", "epochs": 2, "then": {"use": "step", "step_size": 3}},
    "protocol": {"use": "strict", "repeats": 3, "learning_rates": [0.1, 0.2]},
}
SPECIAL: dict[str, tuple[str, Any]] = {
    "of timm": ("architecture", "timm/resnet18"),
    "a variant of timm's": ("architecture", "timm/resnet18.a1_in1k"),
    "of torchvision": ("architecture", {"use": "torchvision/resnet18"}),
    "of kornia": ("augmentation", {"use": "kornia/RandomHorizontalFlip", "p": 0.25}),
    "a short name": ("architecture", "ConvNet"),
    "a short name, changed": ("architecture", {"use": "ConvNet", "width": 8}),
}


def chosen(kind: str, value: Any) -> Chosen[Any]:
    return Structurer(default_registry(), Path("configs")).chosen(kind, value)


def there_and_back(one: Chosen[Any]) -> Chosen[Any]:
    return pickle.loads(pickle.dumps(one))


def told(one: Chosen[Any]) -> tuple[Any, ...]:
    """Return all there is to say of a component but its class, which a family may make anew."""
    return plain(one), one.entry, one.given, type(one.component).__name__


def assert_same(sent: Chosen[Any], come: Chosen[Any]) -> None:
    assert told(come) == told(sent)
    assert come.component is not sent.component


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_component_of_every_kind_arrives_as_it_was_sent(kind):
    sent = chosen(kind, ONE_OF_EACH[kind])
    assert_same(sent, there_and_back(sent))


def test_every_kind_of_component_is_among_them_but_sinks_which_stay_with_the_run():
    assert set(ALL_KINDS) - {"sink"} == set(ONE_OF_EACH)


@pytest.mark.parametrize("case", SPECIAL)
def test_members_of_families_and_short_names_arrive_as_they_were_sent(case):
    sent = chosen(*SPECIAL[case])
    assert_same(sent, there_and_back(sent))


def test_what_is_sent_of_a_component_is_no_code_of_its_plugin():
    sent = pickle.dumps(chosen("loss", {"use": "kl", "temperature": 3.5}))
    names = {text for _, text, _ in pickletools.genops(sent) if isinstance(text, str)}
    assert not any(name.startswith("ddrank_losses") for name in names)
    assert {"loss", "kl", "temperature"} <= names


def test_a_component_of_a_one_off_file_arrives_where_the_file_is_used(tmp_path):
    file = tmp_path / "acme.py"
    file.write_text(FOCAL)
    with using(Choice(files=(file,))):
        sent = chosen("loss", {"use": "acme/focal", "gamma": 5.0})
        assert sent.entry.version == hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        assert_same(sent, there_and_back(sent))


def test_a_component_of_a_distribution_that_is_missing_is_refused_with_its_name(install, tmp_path):
    install("acme", FOCAL)
    sent = pickle.dumps(chosen("loss", "acme/focal"))
    with using(Choice(without=("acme",))), pytest.raises(PluginError) as refused:
        pickle.loads(sent)
    assert "chosen from acme 1.2: install the same acme on both machines" in str(refused.value)


def test_a_component_of_another_version_is_refused_with_both(install, tmp_path):
    install("acme", FOCAL)
    sent = pickle.dumps(chosen("loss", "acme/focal"))
    info = tmp_path / "site-packages/acme-1.2.dist-info/METADATA"
    info.write_text(info.read_text().replace("1.2", "1.3"))
    with pytest.raises(PluginError) as refused:
        pickle.loads(sent)
    assert str(refused.value) == (
        "loss 'acme/focal' is of acme 1.3 here, and was chosen from acme 1.2; "
        "install the same acme on both machines"
    )


def test_a_component_whose_source_differs_is_refused(install, tmp_path):
    install("acme", FOCAL)
    sent = pickle.dumps(chosen("loss", "acme/focal"))
    module = tmp_path / "site-packages/acme.py"
    module.write_text(FOCAL + "# corrected\n")
    with pytest.raises(PluginError, match="its source differs from where it was chosen"):
        pickle.loads(sent)
