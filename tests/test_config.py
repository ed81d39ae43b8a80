"""Run configs: what is accepted, and the one line for whatever is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddrank_core import yaml
from ddrank_core.cli.show import PLACE, example
from ddrank_core.config import load_distill, load_run
from ddrank_core.errors import ConfigError
from ddrank_core.registry import Registry, default_registry
from ddrank_core.spec import KINDS
from ddrank_core.structure import Structurer

BASE = """
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
"""

TRAINED = "full_data.recipe={optimizer: sgd, schedule: constant, epochs: 1}"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return default_registry()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a good config and a file where the distilled set should be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set.safetensors").touch()
    (tmp_path / "run.yaml").write_text(BASE)
    return tmp_path


def refusal(registry: Registry, *overrides: str, path: str = "run.yaml") -> str:
    with pytest.raises(ConfigError) as refused:
        load_run(Path(path), registry, overrides)
    return str(refused.value)


# What is accepted


def test_names_parameters_and_defaults_become_typed_objects(registry):
    config = load_run(Path("run.yaml"), registry)
    assert config.name == "run"
    assert (config.student.use, config.student.given) == ("convnet", ("depth",))
    assert config.recipe.optimizer.component.momentum == 0.8
    assert [augmentation.use for augmentation in config.recipe.augmentation] == ["dsa"]
    assert config.scores == ("hlr", "ior", "ior_hlr", "lrs", "ars")
    assert (config.recipe.batch_size, config.seed, config.subset_seed) == (256, 0, None)


def test_one_augmentation_may_stand_without_a_list(registry):
    config = load_run(
        Path("run.yaml"), registry, ["recipe.augmentation=none", "hard.augmentation={use: dsa}"]
    )
    assert [augmentation.use for augmentation in config.recipe.augmentation] == ["none"]
    assert [augmentation.use for augmentation in config.hard.augmentation] == ["dsa"]


def test_a_whole_number_will_do_for_a_number(registry):
    config = load_run(Path("run.yaml"), registry, ["recipe.optimizer.weight_decay=0"])
    assert repr(config.recipe.optimizer.component.weight_decay) == "0.0"


def test_paths_start_at_the_folder_of_the_config(registry, folder):
    (folder / "configs").mkdir()
    (folder / "configs/run.yaml").write_text(BASE.replace("set.safetensors", "../set.safetensors"))
    config = load_run(Path("configs/run.yaml"), registry)
    assert config.distilled.path == Path("set.safetensors")


def test_a_path_may_name_an_environment_variable(registry, folder, monkeypatch):
    monkeypatch.setenv("DDRANK_PLACE", str(folder))
    config = load_run(Path("run.yaml"), registry, ["distilled.path=${DDRANK_PLACE}/set.safetensors"])
    assert config.distilled.path == folder / "set.safetensors"


def test_a_teacher_is_an_architecture_with_a_checkpoint_beside_its_parameters(registry, folder):
    (folder / "t.safetensors").touch()
    config = load_run(
        Path("run.yaml"),
        registry,
        ["teachers=[{use: convnet, depth: 4, checkpoint: t.safetensors}, convnet]", TRAINED],
    )
    first, second = config.teachers
    assert (first.network.component.depth, first.checkpoint) == (4, Path("t.safetensors"))
    assert (second.network.use, second.checkpoint) == ("convnet", None)


def test_a_resolved_config_loads_again_to_the_same_config(registry, folder):
    config = load_run(Path("run.yaml"), registry)
    import yaml as pyyaml

    (folder / "again.yaml").write_text(pyyaml.safe_dump(config.resolved()))
    again = load_run(Path("again.yaml"), registry)
    assert again == config
    assert again.digest() == config.digest()


def test_the_digest_changes_with_any_parameter(registry):
    digests = {
        load_run(Path("run.yaml"), registry, overrides).digest()
        for overrides in ([], ["recipe.epochs=6"], ["student.depth=3"], ["seed=1"])
    }
    assert len(digests) == 4


def test_the_example_of_every_component_is_yaml_that_makes_it(registry, folder):
    structurer = Structurer(registry, folder)
    of_configs = [kind for kind in KINDS if kind in PLACE]
    entries = [entry for kind in of_configs for entry in registry.entries(kind) if not entry.spec.is_family]
    for entry in entries:
        value = yaml.parse(example(entry.kind, entry.name, registry.load(entry.kind, entry.name)), "example")
        while "use" not in value:
            (value,) = value.values()
        if not any(str(item).startswith("<") for item in value.values()):
            assert structurer.chosen(entry.kind, value).use == entry.name


# Fields: an override -> the line that refuses it

FIELDS = {
    "recipe.epochs=0": "recipe.epochs: must be at least 1, got 0",
    "recipe.epochs=1.5": "recipe.epochs: must be a whole number, got 1.5",
    "recipe.epochs=true": "recipe.epochs: must be a whole number, got true",
    "recipe.epochs=many": "recipe.epochs: must be a whole number, got 'many'",
    "recipe.epochs=": "recipe.epochs: must be a whole number, got nothing",
    "recipe.epoch=5": "recipe.epoch: unknown field (did you mean 'epochs'?)",
    "recepi.epochs=5": "recepi: unknown field (did you mean 'recipe'?)",
    "recipe=5": "recipe: must be a mapping of fields, got 5",
    "recipe=[1]": "recipe: must be a mapping of fields, got [1]",
    "recipe={labels: hard, loss: ce, optimizer: sgd, schedule: constant}": (
        "recipe.epochs: missing (whole number: passes over the distilled images)"
    ),
    "recipe={labels: hard, loss: ce, optimizer: sgd, schedule: constant, epoch: 5}": (
        "recipe.epoch: unknown field (did you mean 'epochs'?)"
    ),
    "recipe={}": (
        "recipe.labels: missing (a label-mapping: what each image is trained towards) (and 4 more)"
    ),
    "recipe.loss=kll": "recipe.loss: no loss 'kll' (did you mean 'kl'?); see 'ddrank list loss'",
    "recipe.loss=convnet": "recipe.loss: 'convnet' is an architecture, not a loss; see 'ddrank list loss'",
    "recipe.loss=5": "recipe.loss: must be a loss: its name, or 'use: NAME' and its parameters",
    "recipe.loss={ues: ce}": "recipe.loss: 'use: NAME' is missing, which names a loss",
    "recipe.loss={use: 5}": "recipe.loss.use: must be text, got 5",
    "recipe.loss={use: sce, temprature: 2}": (
        "recipe.loss.temprature: unknown field (did you mean 'temperature'?)"
    ),
    "recipe.optimizer.zzz=2": (
        "recipe.optimizer.zzz: unknown field; it has momentum, weight_decay, decay_on, nesterov"
    ),
    "recipe.schedule.gamma=2": "recipe.schedule.gamma: unknown field; it has no parameters",
    "recipe.loss={use: sce, temperature: -1}": "recipe.loss.temperature: must be greater than 0, got -1.0",
    "recipe.loss={use: sce, temperature: .nan}": "recipe.loss.temperature: must be a finite number, got nan",
    "recipe.optimizer.momentum=high": "recipe.optimizer.momentum: must be a number, got 'high'",
    "recipe.optimizer.momentum=1": "recipe.optimizer.momentum: must be less than 1, got 1.0",
    "recipe.augmentation=[dsa, {use: dsaa}]": (
        "recipe.augmentation[1]: no augmentation 'dsaa' (did you mean 'dsa'?); see 'ddrank list augmentation'"
    ),
    "recipe.augmentation=kornia/RandomAffin": (
        "recipe.augmentation[0]: no augmentation 'kornia/RandomAffin' (did you mean 'kornia/RandomAffine'?); "
        "see ddrank list augmentation 'kornia/*'"
    ),
    "student=timm/resnet19": (
        "student: no architecture 'timm/resnet19' (did you mean 'timm/resnet18'?); "
        "see ddrank list architecture 'timm/*'"
    ),
    "student=acme/net": "student: no architecture 'acme/net'; see 'ddrank list architecture'",
    "student.norm=instanec": (
        "student.norm: must be one of instance, batch, layer, group, none, got 'instanec' "
        "(did you mean 'instance'?)"
    ),
    "teachers=convnet": "teachers: must be a list, got 'convnet'",
    "teachers=[{use: convnet, depht: 3}]": "teachers[0].depht: unknown field (did you mean 'depth'?)",
    "teachers=[{use: convnet, checkpoint: 5}]": "teachers[0].checkpoint: must be text, got 5",
    "teachers=[{checkpoint: a.pt}]": "teachers[0]: 'use: NAME' is missing, which names an architecture",
    "full_data.accuracy=90": "full_data.accuracy: must be at most 1, got 90.0",
    "scores=hlr": "scores: must be a list, got 'hlr'",
    "scores=[hlr, iro]": (
        "scores[1]: must be one of hlr, ior, ior_hlr, lrs, ars, got 'iro' (did you mean 'ior'?)"
    ),
    "scores=[]": "scores: must not be empty",
    "protocol.learning_rates=[0.1, x]": "protocol.learning_rates[1]: must be a number, got 'x'",
    "protocol.learning_rates=[]": "protocol.learning_rates: must not be empty",
    "weights.lrs=1.5": "weights.lrs: must be at most 1, got 1.5",
    "precision=fp16": "precision: must be one of fp32, tf32, bf16, got 'fp16' (did you mean 'bf16'?)",
    "seed=-1": "seed: must be at least 0, got -1",
    "name=a/b": "name: must be letters, digits, '.', '_' and '-' (at most 100), got 'a/b'",
    "distilled.ipc=0": "distilled.ipc: must be at least 1, got 0",
    "distilled={}": (
        "distilled.path: missing (path: a distilled set, as `ddrank import` and `ddrank distill` write it)"
    ),
    "distilled.path=${NO_SUCH_VARIABLE}/x": (
        "distilled.path: the environment variable NO_SUCH_VARIABLE in '${NO_SUCH_VARIABLE}/x' is not set"
    ),
    "distilled.path=sets.safetensors": (
        "distilled.path: no such file: sets.safetensors (did you mean 'set.safetensors'?); "
        "'ddrank import' makes one from what a method published"
    ),
    "hard=dsa": "hard: must be a mapping of fields, got 'dsa'",
}


@pytest.mark.parametrize("override", FIELDS)
def test_a_wrong_field_is_one_line_with_file_and_field(registry, override):
    assert refusal(registry, override) == f"run.yaml: {FIELDS[override]}"


def test_a_parameter_that_a_component_of_a_stranger_chokes_on_is_one_line(install, folder):
    install(
        "acme",
        "from ddrank_core import ComponentSpec, component, hookimpl, parameter\n"
        "@hookimpl\ndef ddrank_losses(): return [ComponentSpec('acme/focal', 'acme:Focal', 'Focal')]\n"
        "@component\nclass Focal:\n"
        "    table: dict[str, int] = parameter('t', default=None, check=lambda v: v['missing'])\n",
    )
    line = refusal(default_registry(), "recipe.loss={use: acme/focal, table: {a: 1}}")
    assert line == "run.yaml: recipe.loss: KeyError: 'missing'"


# Overrides


def test_an_override_writes_a_short_component_out_in_full(registry):
    config = load_run(
        Path("run.yaml"), registry, ["recipe.optimizer=adam", "recipe.optimizer.weight_decay=2"]
    )
    chosen = config.recipe.optimizer
    assert (chosen.use, chosen.component.weight_decay) == ("adam", 2.0)


def test_an_override_reaches_into_lists_and_missing_sections(registry):
    config = load_run(
        Path("run.yaml"), registry, ["recipe.augmentation.0=none", "weights.lrs=0.25", "scores=[lrs]"]
    )
    assert [augmentation.use for augmentation in config.recipe.augmentation] == ["none"]
    assert (config.weights.lrs, config.scores) == (0.25, ("lrs",))


OVERRIDES = {
    "epochs": "must look like field=value, such as recipe.epochs=50",
    "=5": "must look like field=value, such as recipe.epochs=50",
    "recipe..epochs=5": "must look like field=value, such as recipe.epochs=50",
    "recipe.epochs.x=5": "'epochs' is 5, which has no fields",
    "recipe.augmentation.1=dsa": "'1' is not a position in the list (0 to 0)",
    "recipe.augmentation.first=dsa": "'first' is not a position in the list (0 to 0)",
    "recipe.epochs=[": "while parsing a flow node: expected the node content, but found '<stream end>'",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_wrong_override_is_one_line_that_quotes_it(registry, override):
    assert refusal(registry, override) == f"--set {override}: {OVERRIDES[override]}"


# Right field by field, and wrong together

CROSS = {
    "a loss on soft labels, with hard labels": (
        ["recipe.loss=kl"],
        "recipe.loss: kl needs soft labels and recipe.labels: hard gives none; use the labels soft or "
        "teacher, or the loss ce",
    ),
    "labels of teachers, without a teacher": (
        ["recipe.labels=teacher"],
        "teachers: recipe.labels: teacher needs at least one teacher",
    ),
    "stored soft labels, and random images that have none": (
        ["recipe.labels=soft"],
        "teachers: recipe.labels: soft needs a teacher, to label the random real images that the scores "
        "compare with",
    ),
    "two augmentations that mix images": (
        ["recipe.augmentation=[mixup, dsa, cutmix]"],
        "recipe.augmentation: mixup and cutmix both mix images; use one of them",
    ),
    "two that mix images, in the hard arm": (
        ["hard.augmentation=[cutmix, mixup]"],
        "hard.augmentation: cutmix and mixup both mix images; use one of them",
    ),
    "an accuracy without its source": (
        ["full_data={accuracy: 0.9}"],
        "full_data.source: missing; say where the accuracy 0.9 is from",
    ),
    "a source without its accuracy": (
        ["full_data={source: a paper}"],
        "full_data.accuracy: missing, though full_data.source is given",
    ),
    "no full-data accuracy, where a score needs it": (
        ["full_data={}", "scores=[ior, lrs]"],
        "full_data: give an accuracy with its source, or a recipe to train it here; the scores ior, lrs "
        "need it",
    ),
    "a teacher to train, and no recipe for it": (
        ["teachers=[convnet]"],
        "full_data.recipe: missing; a teacher without a checkpoint is trained with it",
    ),
    "a checkpoint that is not there": (
        ["teachers=[{use: convnet, checkpoint: gone.pt}]"],
        "teachers[0].checkpoint: no such file: gone.pt",
    ),
    "a score twice": (["scores=[hlr, hlr]"], "scores: the same score is asked for twice"),
}


@pytest.mark.parametrize("case", CROSS)
def test_what_is_wrong_together_is_one_line(registry, case):
    overrides, line = CROSS[case]
    assert refusal(registry, *overrides) == f"run.yaml: {line}"


@pytest.mark.parametrize(
    "overrides",
    [
        ["full_data={}", "scores=[ior, ars]"],
        ["recipe.labels=soft", "recipe.loss=kl", "scores=[hlr]"],
        ["recipe.labels=teacher", "recipe.loss=kl", "teachers=[convnet]", TRAINED],
        ["recipe.augmentation=[dsa, mixup]"],
    ],
    ids=["no score needs full data", "no arm is random", "a teacher that is trained here", "one mixes"],
)
def test_what_fits_together_is_accepted(registry, overrides):
    load_run(Path("run.yaml"), registry, overrides)


# YAML: a text -> what follows the file's name in the line that refuses it

YAML = {
    "a: 1\na: 2\n": ":2: 'a' stands twice",
    "a:\n  b: 1\n  c: 2\n  b: 3\n": ":4: 'b' stands twice",
    "a: &x [1]\nb: *x\n": ":2: aliases (*x) are not allowed",
    "a: 1\nb: !!python/object/apply:os.system [ls]\n": (
        ":2: tags (!!python/object/apply:os.system) are not allowed"
    ),
    "a: !!bool maybe\n": ":1: tags (!!bool) are not allowed",
    "a: !thing {}\n": ":1: tags (!thing) are not allowed",
    "on: 1\n": ":1: a key must be text; 'on' needs quotes",
    "a: {<<: {b: 1}}\n": ":1: a key must be text; '<<' needs quotes",
    "? [1]\n: 2\n": ":1: a key must be text",
    "a: [1\nb: 2\n": ":2: while parsing a flow sequence: expected ',' or ']', but got ':'",
    "a: 1\n---\nb: 2\n": ":2: expected a single document in the stream: but found another document",
    "a: \0\n": (
        ": cannot be read as YAML: ReaderError: unacceptable character #x0000: special characters are not "
        "allowed"
    ),
    "[" * 5000: ": nested too deeply",
}


@pytest.mark.parametrize("text", YAML, ids=lambda text: text[:20].encode("unicode_escape").decode())
def test_a_fault_of_the_yaml_is_one_line_with_file_and_line(registry, folder, text):
    (folder / "bad.yaml").write_text(text)
    assert refusal(registry, path="bad.yaml") == f"bad.yaml{YAML[text]}"


@pytest.mark.parametrize("text", ["", "- 1\n", "hello\n"])
def test_a_file_that_is_no_mapping_is_refused_with_the_fields(registry, folder, text):
    (folder / "bad.yaml").write_text(text)
    assert refusal(registry, path="bad.yaml").startswith("bad.yaml: must be a mapping of name, dataset, ")


def test_a_file_that_cannot_be_a_config_is_one_line(registry, folder):
    (folder / "big.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    (folder / "latin.yaml").write_bytes("name: Zürich".encode("latin-1"))
    assert refusal(registry, path="big.yaml") == "big.yaml: larger than 1 MiB, which no config is"
    assert refusal(registry, path="latin.yaml") == "latin.yaml: not a text file (UTF-8)"
    assert refusal(registry, path="gone.yaml") == "gone.yaml: no such file"
    assert refusal(registry, path=".") == ".: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-2.5e3", -2500.0),
        (".5e1", 5.0),
        ("1.5", 1.5),
        ("7", 7),
        ("none", "none"),
        ("1e-3x", "1e-3x"),
    ],
)
def test_a_number_in_scientific_notation_is_a_number(text, value):
    parsed = yaml.parse(text, "text")
    assert (parsed, type(parsed)) == (value, type(value))


# Distillation configs

DISTILL = (
    "dataset: digits\nmethod: distribution-matching\nstudent: convnet\nipc: 10\noutput: out/set.safetensors\n"
)


def test_a_distillation_config_is_typed_and_its_output_is_next_to_it(registry, folder):
    (folder / "configs").mkdir()
    (folder / "configs/dm.yaml").write_text(DISTILL)
    config = load_distill(Path("configs/dm.yaml"), registry, ["ipc=1"])
    assert (config.name, config.ipc, config.output) == ("dm", 1, Path("configs/out/set.safetensors"))


def test_a_distillation_writes_safetensors_only(registry, folder):
    (folder / "dm.yaml").write_text(DISTILL)
    with pytest.raises(ConfigError) as refused:
        load_distill(Path("dm.yaml"), registry, ["output=set.pt"])
    assert str(refused.value) == "dm.yaml: output: must end in .safetensors, got 'set.pt'"


@pytest.mark.parametrize("override", ["seed=0", "protocol.repeats=5"])
def test_strict_is_the_protocol_where_none_is_named(registry, folder, override):
    text = (folder / "run.yaml").read_text().replace("protocol: {use: strict, repeats: 2}\n", "")
    (folder / "run.yaml").write_text(text)
    config = load_run(Path("run.yaml"), registry, [override])
    assert config.protocol.use == "strict"
    assert config.protocol.component.repeats == 5
