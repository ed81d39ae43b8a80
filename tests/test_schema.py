"""The JSON Schema of a config: what it says, and that it gives the loader's own verdict.

The loader decides what a config is. A schema that refused more would mark good files red, one that let more
through would be of little use: both get the same samples, and what a schema cannot say is written out here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from test_light_imports import HEAVY, launch

from ddrank_core import __version__
from ddrank_core import yaml as project_yaml
from ddrank_core.cli.main import main
from ddrank_core.cli.show import PLACE, example
from ddrank_core.config import _values, load_distill, load_run, load_teacher
from ddrank_core.errors import ConfigError, DDRankError
from ddrank_core.plugins import PluginHost, installed
from ddrank_core.registry import Entry, Registry
from ddrank_core.schema import CONFIGS, Schema, schema_of, text_of
from ddrank_core.spec import parameters_of
from ddrank_core.structure import KIND_OF, Chosen, Structurer

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(FOLDER.rglob("*.yaml"))
LOADERS = {"run": load_run, "distill": load_distill, "teacher": load_teacher}

REGISTRY = Registry(PluginHost(plugin for plugin in installed() if plugin.is_first_party), __version__)
SCHEMAS = {config: schema_of(config, REGISTRY)[0] for config in CONFIGS}
VALIDATORS = {config: Draft202012Validator(schema) for config, schema in SCHEMAS.items()}


def part(config: str, *fields: str) -> Schema:
    """Return the schema of a field, by its path, with references followed."""
    schema = SCHEMAS[config]
    found: Schema = schema
    for field in fields:
        found = found["properties"][field]
        if "$ref" in found:
            found = {**schema["$defs"][found["$ref"].rpartition("/")[2]], **found}
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(FOLDER))


# What it says


@pytest.mark.parametrize("config", CONFIGS)
def test_a_schema_is_one_of_draft_2020_12(config):
    assert SCHEMAS[config]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(SCHEMAS[config])


def test_a_parameter_comes_with_its_documentation_type_default_and_bounds():
    (kl,) = (
        branch["then"]
        for branch in SCHEMAS["run"]["$defs"]["loss"]["anyOf"][1]["allOf"]
        if branch["if"]["properties"]["use"]["enum"] == ["kl"]
    )
    assert kl["properties"]["temperature"] == {
        "description": "softens labels and student alike",
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1.0,
    }
    assert kl["additionalProperties"] is False


def test_a_field_of_the_config_comes_with_its_documentation_type_default_and_bounds():
    assert part("run", "recipe", "batch_size") == {
        "description": "images per step",
        "type": "integer",
        "minimum": 1,
        "default": 256,
    }


def fields_in(schema: object) -> Iterator[tuple[str, Schema]]:
    """Yield every field of every mapping in a schema, conditions aside."""
    if isinstance(schema, list):
        for item in schema:
            yield from fields_in(item)
    elif isinstance(schema, dict):
        for name, field in schema.get("properties", {}).items():
            if field is not True:
                yield name, field
        for key, item in schema.items():
            if key not in ("if", "else"):
                yield from fields_in(item)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_is_documented(config):
    fields = [(name, field) for name, field in fields_in(SCHEMAS[config]) if "minLength" not in field]
    assert len(fields) > 50
    assert [name for name, field in fields if not field.get("description")] == []


@pytest.mark.parametrize("config", CONFIGS)
def test_null_is_the_first_type_of_a_field_that_may_be_null(config):
    # yaml-language-server 1.25 stops completing at a field whose first type is text and default is null.
    types = [field["type"] for _, field in fields_in(SCHEMAS[config]) if "null" in field.get("type", ())]
    assert {kinds[0] for kinds in types} == {"null"}


PLACES = {
    "run dataset": "dataset",
    "run student": "architecture",
    "run recipe.labels": "label-mapping",
    "run recipe.loss": "loss",
    "run recipe.optimizer": "optimizer",
    "run recipe.schedule": "schedule",
    "run protocol": "protocol",
    "distill method": "method",
    "distill dataset": "dataset",
    "distill student": "architecture",
    "teacher network": "architecture",
}


def names_of(config: str, kind: str) -> tuple[list[str], list[str]]:
    """Return the names and the patterns that a kind's components are completed with."""
    options = SCHEMAS[config]["$defs"][f"{kind}-name"]["anyOf"]
    assert all(option["description"] for option in options)
    single = [option["const"] for option in options if "const" in option]
    return single, [option["pattern"] for option in options if "pattern" in option]


@pytest.mark.parametrize("place", PLACES)
def test_use_is_completed_with_the_components_of_its_place(place):
    kind, (config, _, field) = PLACES[place], place.partition(" ")
    found = part(config, *field.split("."))
    entries = REGISTRY.entries(kind)
    alone, mapping = found["anyOf"]
    assert alone["$ref"] == mapping["properties"]["use"]["$ref"] == f"#/$defs/{kind}-name"
    single, patterns = names_of(config, kind)
    assert single == [entry.name for entry in entries if not entry.spec.is_family]
    assert patterns == [f"^{entry.name[:-1]}.+$" for entry in entries if entry.spec.is_family]


def test_lists_and_short_forms_are_completed_too():
    teacher, student = part("run", "teachers")["items"], part("run", "students")["items"]
    assert (teacher["$ref"], student["$ref"]) == ("#/$defs/teacher", "#/$defs/student")
    for name, own in (("teacher", {"checkpoint", "accuracy"}), ("student", {"full_data"})):
        alone, mapping = SCHEMAS["run"]["$defs"][name]["anyOf"]
        assert alone == {"$ref": "#/$defs/architecture-name"}
        assert set(mapping["properties"]) == {"use", *own}
    single = {"$ref": "#/$defs/augmentation"}
    assert part("run", "recipe", "augmentation")["anyOf"] == [single, {"type": "array", "items": single}]


def test_a_component_with_a_required_parameter_is_not_chosen_by_its_name_alone():
    alone, _ = SCHEMAS["run"]["$defs"]["schedule"]["anyOf"]
    assert alone["not"] == {"enum": ["multi-step", "step", "warmup"]}


def test_a_short_name_has_not_the_defaults_of_what_it_sets():
    branches = SCHEMAS["run"]["$defs"]["architecture"]["anyOf"][1]["allOf"]
    by_name = {name: b["then"] for b in branches for name in b["if"]["properties"]["use"]["enum"]}
    assert by_name["resnet"]["properties"]["norm"]["default"] == "instance"
    assert "default" not in by_name["ResNet-18-BN"]["properties"]["norm"]
    assert by_name["ResNet-18-BN"]["properties"]["stem"]["default"] == "auto"


def test_the_text_is_the_schema_with_no_line_broken_that_fits():
    for schema in SCHEMAS.values():
        assert json.loads(text_of(schema)) == schema
    assert text_of({"a": [1, None], "b": True}) == '{"a": [1, null], "b": true}'


# The files of this repository


@pytest.mark.parametrize("config", CONFIGS)
def test_the_schema_in_the_repository_is_the_one_that_the_command_prints(config):
    path = FOLDER / "schema" / f"{config}.json"
    command = f"DDRANK_PLUGINS= ddrank schema {config} --output configs/schema/{config}.json"
    assert path.read_text(encoding="utf-8") == f"{text_of(SCHEMAS[config])}\n", f"write it anew: {command}"


def bound(path: Path) -> Path:
    """Return the schema that a config's first line binds."""
    start = "# yaml-language-server: $schema="
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith(start), f"{name_of(path)} must start with '{start}...'"
    return Path(os.path.normpath(path.parent / first.removeprefix(start)))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_config_binds_its_schema_and_keeps_it(path):
    schema = bound(path)
    assert schema.parent == FOLDER / "schema"
    assert [error.message for error in VALIDATORS[schema.stem].iter_errors(project_yaml.read(path))] == []


def test_configs_of_all_three_sorts_are_bound():
    assert {bound(path).stem for path in FILES} == set(CONFIGS)


# The loader's verdict

BASES = {
    "run": """
dataset: digits
distilled: {path: set.safetensors}
student: {use: convnet, depth: 2}
recipe:
  labels: hard
  loss: ce
  augmentation: [dsa]
  optimizer: {use: sgd, momentum: 0.8}
  schedule: constant
  epochs: 5
full_data: {accuracy: 0.9, source: measured}
protocol: {use: strict, repeats: 2}
""",
    "distill": """
dataset: digits
method: {use: distribution-matching, iterations: 3}
student: convnet
ipc: 1
output: out.safetensors
""",
    "teacher": """
dataset: digits
network: {use: convnet, depth: 2}
recipe: {optimizer: sgd, schedule: cosine, epochs: 2}
""",
}

TRAINED = "full_data={recipe: {optimizer: sgd, schedule: constant, epochs: 1}}"

TAKEN = {
    "run": [
        [],
        ["no name"],
        ["name=a-b_c.1"],
        ["no protocol"],
        ["protocol=strict"],
        ["protocol={}"],
        ["protocol={repeats: 3, search: halving}"],
        ["protocol={use: ddranking-0.2, test_interval: 5}"],
        ["recipe.augmentation=none"],
        [
            "no student",
            "students=[{use: mlp, full_data: {recipe: {augmentation: dsa, optimizer: sgd, schedule: cosine, "
            "epochs: 1}}}]",
        ],
        ["recipe.augmentation={use: dsa, strategies: [color]}"],
        ["recipe.augmentation=[]"],
        ["no recipe.augmentation"],
        ["recipe.augmentation=[{use: dsa}, horizontal-flip, {use: random-crop, padding: 2}]"],
        ["recipe.augmentation={use: kornia/RandomAffine, degrees: 15}"],
        ["recipe.augmentation=torchvision/TrivialAugmentWide"],
        ["hard.augmentation=dsa", "validation.augmentation={use: none}"],
        ["hard={}", "validation={}", "weights={}"],
        ["full_data={recipe: {augmentation: dsa, optimizer: adam, schedule: cosine, epochs: 1}}"],
        [TRAINED, "full_data.recipe.learning_rates=[0.1, 1]", "full_data.accuracy=null"],
        ["recipe.schedule={use: step, step_size: 2}"],
        ["recipe.schedule={use: warmup, epochs: 1, then: {use: multi-step, milestones: [2, 3]}}"],
        ["recipe.schedule={use: warmup, epochs: 1, then: cosine}"],
        ["recipe.optimizer={use: adam, betas: [0.9, 0.99], weight_decay: 0}"],
        ["student=ConvNet-3-BN"],
        ["student={use: ConvNet-3-BN, width: 64}"],
        ["student=timm/resnet18"],
        ["student={use: timm/resnet18.a1_in1k, stem: small}"],
        ["student={use: torchvision/resnet18, dropout: null}"],
        ["no student", "students=[convnet, {use: mlp, width: 8}]", TRAINED],
        [
            "no student",
            "students=[{use: mlp, full_data: {accuracy: 0.5, source: us}}, {use: lenet, full_data: null}]",
            TRAINED,
        ],
        ["teachers=[convnet, {use: convnet, checkpoint: t.safetensors, accuracy: 0.9}]", TRAINED],
        ["teachers=[{use: ResNet-18, depth: 34, checkpoint: null}]", TRAINED],
        ["teachers=[]"],
        ["distilled.ipc=null", "distilled.views=null"],
        ["whitening=null"],
        ["whitening={}"],
        ["whitening={eps: 1}"],
        ["scores=[hlr]"],
        ["weights={lrs: 0, ars: 1}"],
        ["seed=9223372036854775807", "subset_seed=null"],
        ["precision=bf16"],
        ["dataset={use: imagenette, root: ., size: 64}"],
        ["dataset={use: arrays, path: x.npz, class_names: [a, b], mean: [0.5]}"],
    ],
    "distill": [[], ["method=random"], ["seed=3"], ["method.augmentation=[]"], ["student=ConvNetD3"]],
    "teacher": [
        [],
        ["recipe.augmentation=dsa"],
        ["recipe.augmentation=[dsa, none]"],
        ["recipe=null", "network={use: timm/resnet18, pretrained: true}"],
        ["precision=tf32", "whitening={eps: 0.01}"],
    ],
}

REFUSED = {
    "run": [
        ["name=a b"],
        ["name=-a"],
        ["name=null"],
        ["no dataset"],
        ["no student"],
        ["no recipe"],
        ["no recipe.loss"],
        ["no recipe.epochs"],
        ["no distilled.path"],
        ["students=[convnet]"],
        ["no student", "students=[]"],
        ["no student", "students=convnet"],
        ["no student", "students=[{width: 3}]"],
        ["no student", "students=[{use: mlp, full_data: {acuracy: 1}}]"],
        ["no student", "students=[{use: mlp, full_data: {accuracy: 0.5}}]"],
        ["no student", "students=[{use: mlp, checkpoint: t.safetensors}]", TRAINED],
        ["recepi={}"],
        ["recipe.epoch=5"],
        ["recipe=null"],
        ["recipe=5"],
        ["recipe=[1]"],
        ["recipe.epochs=0"],
        ["recipe.epochs=1.5"],
        ["recipe.epochs=true"],
        ["recipe.epochs=many"],
        ["recipe.epochs=null"],
        ["recipe.batch_size=-1"],
        ["recipe.micro_batch=0"],
        ["recipe.loss=null"],
        ["recipe.loss=[ce]"],
        ["recipe.loss={}"],
        ["recipe.loss=cee"],
        ["recipe.loss={use: cee}"],
        ["recipe.loss={use: [ce]}"],
        ["recipe.loss=dsa"],
        ["recipe.loss=acme/focal"],
        ["recipe.loss={use: ce, label_smoothing: 1}"],
        ["recipe.loss={use: ce, label_smoothing: a}"],
        ["recipe.loss={use: ce, temperature: 1}"],
        ["recipe.labels={use: smooth, smoothing: true}"],
        ["recipe.augmentation=null"],
        ["recipe.augmentation=5"],
        ["recipe.augmentation=[[dsa]]"],
        ["recipe.augmentation=[dsa, {mode: single}]"],
        ["recipe.augmentation={use: dsa, mode: both}"],
        ["recipe.augmentation={use: dsa, strategies: color}"],
        ["recipe.augmentation={use: dsa, strategies: [colour]}"],
        ["recipe.augmentation={use: random-resized-crop, scale: [0.5]}"],
        ["recipe.augmentation={use: random-resized-crop, scale: [0.1, 0.2, 0.3]}"],
        ["recipe.augmentation=kornia/"],
        ["recipe.schedule=step"],
        ["recipe.schedule={use: step}"],
        ["recipe.schedule={use: step, step_size: 1, milestones: [3]}"],
        ["recipe.schedule={use: warmup, epochs: 1}"],
        ["recipe.schedule={use: warmup, epochs: 1, then: step}"],
        ["recipe.schedule={use: warmup, epochs: 1, then: {use: cosine, gamma: 1}}"],
        ["recipe.optimizer={use: sgd, learning_rate: 0.1}"],
        ["recipe.optimizer={use: sgd, momentum: 1}"],
        ["recipe.optimizer={use: sgd, nesterov: 1}"],
        ["recipe.optimizer={use: sgd, momentum: '0.9'}"],
        ["hard=null"],
        ["hard={loss: ce}"],
        ["validation=null"],
        ["full_data=null"],
        ["full_data={accuracy: 0.9}"],
        ["full_data={accuracy: 0.9, source: ''}"],
        ["full_data={accuracy: 0.9, source: null}"],
        ["full_data={accuracy: 90, source: us}"],
        [TRAINED, "full_data.source=us"],
        [TRAINED, "full_data.recipe.learning_rates=[]"],
        [TRAINED, "full_data.recipe.learning_rates=[0.1, 0.1]"],
        [TRAINED, "full_data.recipe.learning_rates=[0]"],
        [TRAINED, "full_data.recipe.loss=ce"],
        ["student={use: convnet, depht: 2}"],
        ["student={use: convnet, checkpoint: t.safetensors}"],
        ["student={use: ConvNet-3, depth: 0}"],
        ["teachers=convnet"],
        ["teachers=null"],
        ["teachers=[{checkpoint: t.safetensors}]", TRAINED],
        ["teachers=[{use: convnet, checkpoint: 5}]", TRAINED],
        ["teachers=[{use: convnet, accuracy: 90}]", TRAINED],
        ["teachers=[{use: timm/resnet18, accuracy: high}]", TRAINED],
        ["distilled=set.safetensors"],
        ["distilled.path=null"],
        ["distilled.ipc=0"],
        ["whitening=true"],
        ["whitening={eps: 0}"],
        ["protocol=null"],
        ["protocol=loose"],
        ["protocol={repeats: 0}"],
        ["protocol={test_interval: 5}"],
        ["protocol={use: ddranking-0.2, search: grid}"],
        ["scores=[]"],
        ["scores=hlr"],
        ["scores=[hlr, hlr]"],
        ["scores=[lhr]"],
        ["weights={lrs: 1.1}"],
        ["seed=-1"],
        ["seed=9223372036854775808"],
        ["precision=fp16"],
        ["dataset={use: cifar10, root: 5}"],
        ["dataset={use: cifar10, size: 32}"],
        ["dataset=image-folder"],
        ["dataset={use: image-folder, root: .}"],
        ["dataset={use: image-folder, root: ., size: 32, channels: 2}"],
        ["dataset={use: imagenet, classes: 3}"],
    ],
    "distill": [
        ["no output"],
        ["no ipc"],
        ["ipc=0"],
        ["method=dsa"],
        ["method.iterations=0"],
        ["method.init=zeros"],
        ["recipe={}"],
        ["student=null"],
    ],
    "teacher": [
        ["no network"],
        ["network=null"],
        ["network={use: convnet, checkpoint: t.safetensors}"],
        ["recipe.labels=hard"],
        ["recipe.epochs=0"],
        ["no recipe.optimizer"],
        ["student=convnet"],
    ],
}

LEFT_TO_THE_LOADER = {
    "run": {
        "a file that is not there": ["distilled.path=other.safetensors"],
        "an environment variable that is not set": ["distilled.path=${DDRANK_NOWHERE}/set.safetensors"],
        "fields that are wrong together": ["recipe.loss=kl"],
        "two augmentations that mix": ["recipe.augmentation=[mixup, cutmix]"],
        "a component's own check": ["protocol.learning_rates=[]"],
        "parameters that are wrong together": ["recipe.optimizer={use: sgd, momentum: 0, nesterov: true}"],
        "a member that a family has not": ["student=timm/nothing"],
        "parameters of a family's members": ["student={use: timm/resnet18, depth: 3}"],
        "5.0 for a whole number": ["recipe.epochs=5.0"],
        "an infinity": ["recipe.optimizer.weight_decay=.inf"],
        "what the scores need": ["full_data={}"],
    },
    "distill": {"an ending": ["output=out.pt"]},
    "teacher": {"a network that has no weights to keep": ["no recipe"]},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the base configs and the files that they name."""
    monkeypatch.chdir(tmp_path)
    for name in ("set.safetensors", "t.safetensors"):
        (tmp_path / name).touch()
    for config, text in BASES.items():
        (tmp_path / f"{config}.yaml").write_text(text)
    return tmp_path


def changed(config: str, changes: Sequence[str]) -> dict[str, Any]:
    """Return the base config with `field=value` set and `no field` taken out."""
    values = _values(Path(f"{config}.yaml"), [c for c in changes if "=" in c], CONFIGS[config])
    for field in (change.removeprefix("no ") for change in changes if "=" not in change):
        *steps, last = field.split(".")
        place = values
        for step in steps:
            place = place[step]
        del place[last]
    return values


def verdicts(config: str, changes: Sequence[str]) -> tuple[bool, bool]:
    """Return whether the schema and the loader take a changed base config."""
    values = changed(config, changes)
    file = Path("changed.yaml")
    file.write_text(yaml.safe_dump(values))
    try:
        LOADERS[config](file, REGISTRY)
    except DDRankError:
        loads = False
    else:
        loads = True
    return VALIDATORS[config].is_valid(values), loads


def cases(samples: dict[str, list[list[str]]]) -> list[Any]:
    return [
        pytest.param(config, changes, id=f"{config}: {'; '.join(changes) or 'as it is'}")
        for config, several in samples.items()
        for changes in several
    ]


@pytest.mark.parametrize(("config", "changes"), cases(TAKEN))
def test_what_the_loader_takes_is_taken(folder, config, changes):
    assert verdicts(config, changes) == (True, True)


@pytest.mark.parametrize(("config", "changes"), cases(REFUSED))
def test_a_broken_config_is_refused_by_both(folder, config, changes):
    assert verdicts(config, changes) == (False, False)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        pytest.param(config, changes, id=f"{config}: {why}")
        for config, several in LEFT_TO_THE_LOADER.items()
        for why, changes in several.items()
    ],
)
def test_what_a_schema_cannot_say_is_left_to_the_loader(folder, config, changes):
    assert verdicts(config, changes) == (True, False)


# The loader's verdict on every parameter of every component

REQUIRED = {
    "step": {"step_size": 5},
    "multi-step": {"milestones": [3]},
    "warmup": {"epochs": 1, "then": "cosine"},
    "arrays": {"path": "x.npz"},
    "image-folder": {"root": ".", "size": 32},
}
"""What a component cannot be made without."""

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 10**9, 0.25, -0.5, 1.5),
    *(
        "",
        "text",
        [],
        [1],
        [1, 2],
        [2, 1],
        [-1, 0.5],
        [0.25, 0.75],
        ["text"],
        [True],
        {},
        {"a": 1},
        {"use": "cosine"},
    ),
]
"""Tried for every parameter; no 2.0, which a schema cannot tell from 2."""

CHECKED_BY_THE_COMPONENT = {
    "adam.betas",
    "adamw.betas",
    "arrays.class_names",
    "arrays.std",
    "dc.strategies",
    "ddranking-0.2.learning_rates",
    "dsa.strategies",
    "image-folder.std",
    "imagenet.classes",
    "mse_gt.mse_weight",
    "multi-step.milestones",
    "randaugment.magnitude",
    "randaugment.num_magnitude_bins",
    "random-resized-crop.ratio",
    "random-resized-crop.scale",
    "strict.learning_rates",
}
"""Parameters with values that only a component's own check, or its `__attrs_post_init__`, refuses."""

STRUCTURER = Structurer(REGISTRY, Path())
CHOOSERS = {
    kind: Draft202012Validator(
        {
            "$ref": f"#/$defs/{kind}",
            "$defs": {**SCHEMAS["run"]["$defs"], **SCHEMAS["distill"]["$defs"]},
        }
    )
    for kind in PLACE
}


def single_entries(kind: str) -> list[Entry]:
    return [entry for entry in REGISTRY.entries(kind) if not entry.spec.is_family]


def chooses(kind: str, value: Any) -> tuple[bool, bool]:
    """Return whether the schema and the loader take a component's choice."""
    (protocol,) = (cls for cls, name in KIND_OF.items() if name == kind)
    try:
        STRUCTURER.structure(value, Chosen[protocol], "sample")
    except ConfigError:
        return CHOOSERS[kind].is_valid(value), False
    return CHOOSERS[kind].is_valid(value), True


@pytest.mark.parametrize("kind", PLACE)
def test_every_name_is_taken_alone_where_nothing_is_required_and_with_what_is(kind):
    for entry in single_entries(kind):
        needed = {} if entry.spec.preset else REQUIRED.get(entry.name, {})
        alone = (False, False) if needed else (True, True)
        assert chooses(kind, entry.name) == alone, entry.name
        assert chooses(kind, {"use": entry.name, **needed}) == (True, True), entry.name
        assert chooses(kind, {"use": entry.name, **needed, "nonsense": 1}) == (False, False), entry.name


@pytest.mark.parametrize("kind", PLACE)
def test_the_example_that_a_component_is_shown_with_is_taken(kind):
    for entry in single_entries(kind):
        component = REGISTRY.load(kind, entry.name)
        value = yaml.safe_load(example(kind, entry.name, component, entry.spec.preset))
        while "use" not in value:
            (value,) = value.values()
        value.update({} if entry.spec.preset else REQUIRED.get(entry.name, {}))
        assert chooses(kind, value) == (True, True), entry.name


def test_every_value_of_every_parameter_gets_the_loaders_verdict_but_for_a_components_own_checks():
    lenient, tried = set(), 0
    for kind in PLACE:
        for entry in (entry for entry in single_entries(kind) if not entry.spec.preset):
            for field in parameters_of(REGISTRY.load(kind, entry.name)):
                for value in VALUES:
                    given = {"use": entry.name, **REQUIRED.get(entry.name, {}), field.name: value}
                    allowed, loads = chooses(kind, given)
                    assert allowed or not loads, f"the schema alone refuses {given}"
                    if allowed and not loads:
                        lenient.add(f"{entry.name}.{field.name}")
                    tried += 1
    assert tried > 1000
    assert lenient == CHECKED_BY_THE_COMPONENT


# Plugins of third parties

ACME = """
from ddrank_core import ComponentSpec, component, hookimpl, parameter

@component
class Focal:
    gamma: float = parameter("focus on hard images", default=2.0, minimum=0)
    weights: tuple[int, ...] = parameter("of the classes")
    odd: object = parameter("of a type of its own", default=object())

@hookimpl
def ddrank_losses():
    return [
        ComponentSpec("acme/focal", "acme:Focal", "Focal loss"),
        ComponentSpec("acme/even", "acme:Focal", "Focal loss of two classes", preset={"weights": [1, 1]}),
        ComponentSpec("acme/gone", "acme:Gone", "Not there"),
    ]
"""


def test_a_plugins_components_are_in_the_schema_of_the_command(install, capsys):
    install("acme", ACME)
    assert main(["schema"]) == 0
    said = capsys.readouterr()
    schema = json.loads(said.out)
    assert said.err.startswith("warning: loss 'acme/gone' of acme 1.2 cannot be loaded from acme:Gone: ")
    names = {option.get("const") for option in schema["$defs"]["loss-name"]["anyOf"]}
    assert names >= {"kl", "acme/focal", "acme/even"}
    assert "acme/gone" not in names
    loss = Draft202012Validator({"$ref": "#/$defs/loss", "$defs": schema["$defs"]})
    assert loss.is_valid({"use": "acme/focal", "gamma": 0, "weights": [1, 2], "odd": "anything"})
    assert not loss.is_valid({"use": "acme/focal", "gamma": -1, "weights": [1]})
    assert not loss.is_valid({"use": "acme/focal", "gama": 1, "weights": [1]})
    assert not loss.is_valid("acme/focal")
    assert loss.is_valid("acme/even")


# The command


def test_the_command_starts_light(tmp_path):
    code, said, modules = launch("schema", folder=tmp_path)
    assert (code, modules & set(HEAVY)) == (0, set())
    assert json.loads("\n".join(said))["title"] == "A run config of ddrank"


@pytest.mark.parametrize("config", CONFIGS)
def test_the_command_writes_a_file(config, tmp_path, capsys):
    output = tmp_path / "schema.json"
    assert main(["schema", config, "--output", str(output)]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(output.read_text())["title"] == f"A {config} config of ddrank"


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    output = tmp_path / "nowhere" / "schema.json"
    assert main(["schema", "--output", str(output)]) == 2
    assert (
        capsys.readouterr().err == f"error: --output {output}: cannot be written: No such file or directory\n"
    )


def test_another_word_than_the_three_is_refused(capsys):
    assert main(["schema", "runs"]) == 2
    assert "'runs' is not one of 'run', 'distill', 'teacher'" in capsys.readouterr().err
