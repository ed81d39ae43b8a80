"""The ready configs of published methods: each one loads, and takes steps on stand-in images.

Files that differ in nothing but names, and numbers that do not decide which code runs (images per class,
epochs, batch size, rates, temperatures), are one kind. The first of each kind runs always, the others as
slow tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import yaml

from ddrank_core.config import RunConfig, load_run
from ddrank_core.data import distilled, stored_views
from ddrank_core.engine.prepare import prepare
from ddrank_core.engine.run import Outcome, execute
from ddrank_core.engine.train import build
from ddrank_core.engine.whitening import MAX_VALUES
from ddrank_core.registry import Registry, default_registry
from ddrank_core.store import TrialStore
from ddrank_core.types import DistilledSet, ImageSpace

FOLDER = Path(__file__).parents[1] / "configs" / "methods"
FILES = sorted(FOLDER.glob("*/*.yaml"))

CLASSES = 2
"""Of the stand-ins, with one distilled image each; that networks answer for all classes is tested apart."""
WHITENED_SIDE = 16
"""A whitening of 32 x 32 x 3 takes half a minute to fit, and is the same code at any size."""

Shape = tuple[int, int, int]


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@cache
def text_of(path: Path) -> str:
    """Return a config's values as JSON, which is read again in no time."""
    return json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")))


def read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(text_of(path))
    return values


def teachers_of(values: dict[str, Any]) -> list[dict[str, Any]]:
    teachers: list[dict[str, Any]] = values.get("teachers", [])
    return teachers


@pytest.fixture(scope="module")
def registry() -> Registry:
    return default_registry()


@pytest.fixture(scope="module")
def without_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[str]]:
    """Give the overrides that put empty files where a config names ones that a user has to get."""
    empty = tmp_path_factory.mktemp("empty") / "empty.safetensors"
    empty.touch()

    def overrides(path: Path) -> list[str]:
        values = read(path)
        named = [f"distilled.path={empty}", *without_weights(values)]
        return named + ([f"distilled.views={empty}"] if "views" in values["distilled"] else [])

    return overrides


def without_weights(values: dict[str, Any]) -> list[str]:
    """Return the overrides that leave no teacher with weights from a file or a download."""
    overrides = []
    for index, teacher in enumerate(teachers_of(values)):
        key = "checkpoint=null" if "checkpoint" in teacher else "pretrained=false"
        overrides.append(f"teachers.{index}.{key}")
    if overrides:
        recipe = {"optimizer": "sgd", "schedule": "constant", "epochs": 1, "batch_size": CLASSES}
        overrides.append(f"full_data.recipe={json.dumps(recipe)}")
    return overrides


def real_shape(config: RunConfig) -> tuple[Shape, int]:
    """Return the shape of the images of the config's data set, and how many classes it has."""
    facts = config.dataset.component.facts()
    assert facts.image_shape is not None
    assert facts.num_classes is not None
    return facts.image_shape, facts.num_classes


# -- every file ------------------------------------------------------------------------------------------


def test_there_are_configs_of_every_method() -> None:
    methods = "cda d4m datadam datm dc dm dsa dwa edc edf ftd g-vbsm mtt pad rded sre2l"
    assert sorted({path.parent.name for path in FILES}) == methods.split()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_config_loads_and_says_what_its_name_says(
    path: Path, registry: Registry, without_files: Callable[[Path], list[str]]
) -> None:
    config = load_run(path, registry, without_files(path))
    stem, _, ipc = path.stem.rpartition("-ipc")
    assert (config.name, config.distilled.ipc) == (f"{path.parent.name}-{path.stem}", int(ipc))
    assert stem.startswith(read(path)["dataset"]["use"]) or config.dataset.use == "imagenet"
    assert read(path)["distilled"]["path"] == f"data/{config.name}.safetensors"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_config_names_its_paper_its_sources_and_the_published_number(path: Path) -> None:
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for start in (
        "# Paper: ",
        "# Sources: ",
        "# Published: ",
        "# INFERRED: ",
        "#   ddrank import ",
        "# Files: ",
    ):
        assert any(line.startswith(start) for line in head), start


def test_the_readme_lists_every_method_and_number_of_images() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    listed = {
        f"{row[0].strip('`')}/{row[1].strip('`')}-ipc{ipc.strip()}"
        for row in rows
        for ipc in row[2].split(",")
    }
    assert {name_of(path) for path in FILES} == listed


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=name_of(path)) for path in FILES if "whitening" in read(path)],
)
def test_the_images_are_not_too_large_for_their_whitening(
    path: Path, registry: Registry, without_files: Callable[[Path], list[str]]
) -> None:
    (channels, height, width), _ = real_shape(load_run(path, registry, without_files(path)))
    assert channels * height * width <= MAX_VALUES


# -- every network ---------------------------------------------------------------------------------------


def networks() -> dict[str, tuple[Path, str, int]]:
    """Return one place for each network on each data set: file, field, and number of the teacher."""
    places: dict[str, tuple[Path, str, int]] = {}
    for path in FILES:
        values = read(path)
        data = {key: item for key, item in values["dataset"].items() if key in ("use", "size", "classes")}
        for field, found in (("student", [values["student"]]), ("teachers", teachers_of(values))):
            for index, network in enumerate(found):
                shown = {"use": network} if isinstance(network, str) else dict(network)
                shown = {key: item for key, item in shown.items() if key not in ("checkpoint", "pretrained")}
                places.setdefault(json.dumps([data, shown]), (path, field, index))
    return places


@pytest.mark.parametrize(("path", "field", "index"), networks().values(), ids=networks().keys())
def test_a_network_takes_the_images_and_answers_for_every_class(
    path: Path, field: str, index: int, registry: Registry, without_files: Callable[[Path], list[str]]
) -> None:
    config = load_run(path, registry, without_files(path))
    shape, num_classes = real_shape(config)
    chosen = config.student if field == "student" else config.teachers[index].network
    network = build(chosen.component, num_classes, shape, 0).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, *shape)).shape == (1, num_classes)


# -- every kind ------------------------------------------------------------------------------------------


def kind_of(path: Path) -> str:
    """Return all of a config that decides which code runs, with which shapes."""
    values = read(path)
    recipe = values["recipe"]
    # The stand-in sets are smaller than any micro-batch.
    for key in ("epochs", "batch_size", "micro_batch"):
        recipe.pop(key, None)
    for part in ("schedule", "loss"):
        if isinstance(recipe[part], dict):
            numbers = ("milestones", "gamma", "temperature", "ce_weight")
            recipe[part] = {key: item for key, item in recipe[part].items() if key not in numbers}
    shape = {"mnist": "1x28", "fashion-mnist": "1x28", "tiny-imagenet": "3x64"}.get(
        values["dataset"]["use"], "3x32"
    )
    if values["dataset"]["use"].startswith("image"):
        shape = f"3x{values['dataset'].get('size', 128)}"
    teachers = [
        {key: item for key, item in teacher.items() if key not in ("checkpoint", "pretrained")}
        for teacher in teachers_of(values)
    ]
    kept = {
        "shape": shape,
        "student": values["student"],
        "teachers": teachers,
        "views": "views" in values["distilled"],
        "recipe": recipe,
        "hard": values.get("hard"),
        "whitening": values.get("whitening"),
        "scores": values.get("scores"),
    }
    return json.dumps(kept, sort_keys=True)


def first_of_kinds() -> Iterator[Any]:
    """Yield every config; all but the first of each kind are marked slow."""
    seen = set()
    for path in FILES:
        marks = [pytest.mark.slow] if (kind := kind_of(path)) in seen else []
        seen.add(kind)
        yield pytest.param(path, id=name_of(path), marks=marks)


class StandIns:
    """Images of the right shape for the real and distilled ones of a config, and overrides that name them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def overrides(self, path: Path, shape: Shape) -> list[str]:
        values = read(path)
        if "whitening" in values:
            shape = (shape[0], WHITENED_SIDE, WHITENED_SIDE)
        real = json.dumps({"use": "arrays", "path": str(self.real(shape, CLASSES))})
        lasting = {
            "distilled.ipc": 1,
            "recipe.epochs": 1,
            "recipe.batch_size": CLASSES,
            "protocol.repeats": 1,
        }
        if "warmup" in str(values["recipe"]["schedule"]):
            lasting |= {"recipe.epochs": 2, "recipe.schedule.epochs": 1}
        files = {"distilled.path": self.distilled(shape, CLASSES, soft=values["recipe"]["labels"] == "soft")}
        if "views" in values["distilled"]:
            files["distilled.views"] = self.views(CLASSES)
        return [
            f"dataset={real}",
            *(f"{field}={value}" for field, value in {**lasting, **files}.items()),
            *without_weights(values),
        ]

    def real(self, shape: Shape, classes: int) -> Path:
        path = self.folder / f"real-{'x'.join(map(str, shape))}.pt"
        if not path.exists():
            draws = torch.Generator().manual_seed(0)
            arrays = {}
            for part, each in (("train", 2), ("test", 1)):
                size = (each * classes, *shape)
                arrays[f"x_{part}"] = torch.randint(0, 256, size, dtype=torch.uint8, generator=draws)
                arrays[f"y_{part}"] = torch.arange(classes).repeat(each)
            torch.save(arrays, path)
        return path

    def distilled(self, shape: Shape, classes: int, *, soft: bool) -> Path:
        path = self.folder / f"distilled-{'x'.join(map(str, shape))}{'-soft' if soft else ''}.safetensors"
        if not path.exists():
            draws = torch.Generator().manual_seed(1)
            images = DistilledSet(
                images=torch.rand((classes, *shape), generator=draws),
                labels=torch.arange(classes),
                space=ImageSpace(kind="unit"),
                num_classes=classes,
                soft_labels=torch.randn((classes, classes), generator=draws) if soft else None,
            )
            distilled.save(images, path)
        return path

    def views(self, classes: int) -> Path:
        """Write one epoch of views: lower right quarters, some mirrored, with a box of the next image."""
        path = self.folder / f"views-{classes}.safetensors"
        places = torch.arange(classes)
        views = stored_views.Views(
            image=places,
            box=torch.full((classes, 4), 0.5),
            flip=places % 2 == 0,
            soft=torch.randn((classes, classes), generator=torch.Generator().manual_seed(2)),
            partner=places.roll(-1),
            paste=torch.tensor([0, 0, 8, 8]).expand(classes, 4),
        )
        about = stored_views.About(
            epochs=1, count=classes, num_classes=classes, batch_size=CLASSES, mixed="paste"
        )
        stored_views.save([views], about, path)
        return path


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("stand-ins"))


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what the runs of this module keep in a folder of its own: its whitening is fitted once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDRANK_CACHE", str(folder))
        yield folder


def run(config: RunConfig, path: Path, registry: Registry, cache: Path) -> Outcome:
    prepared = prepare(config, str(path), registry, torch.device("cpu"))
    store = TrialStore(cache)
    try:
        return execute(prepared, store, lambda hook, event: None)
    finally:
        store.close()


@pytest.mark.parametrize("path", list(first_of_kinds()))
def test_every_arm_of_a_config_takes_steps_on_stand_ins(
    path: Path,
    registry: Registry,
    without_files: Callable[[Path], list[str]],
    stand_ins: StandIns,
    cache_folder: Path,
) -> None:
    shape, _ = real_shape(load_run(path, registry, without_files(path)))
    config = load_run(path, registry, stand_ins.overrides(path, shape))
    outcome = run(config, path, registry, cache_folder)
    expected = {"full-hard", "syn-hard", "syn-any", "rdm-any"}
    if "ars" in config.scores:
        expected |= {"syn-aug", "rdm-aug", "syn-naug", "rdm-naug"}
    assert set(outcome.arms) == expected
    assert [attrs.asdict(trial) for trial in outcome.trials if trial.diverged] == []
    assert all(outcome.arms[arm].mean is not None for arm in expected)
