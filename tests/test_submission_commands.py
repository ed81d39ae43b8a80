"""`ddrank submission new` and `evaluate`: from a finished run to records of a method and its controls."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import torch
import yaml
from click.testing import CliRunner
from ddrank_networks.convnet import ConvNet
from safetensors.torch import load_file
from tiny_case import CONFIG, PER_CLASS, RECIPE, pictures, write_case

from ddrank_core.cli import main as launcher
from ddrank_core.cli import submission
from ddrank_core.config import SCORES, load_run
from ddrank_core.data import stored_views
from ddrank_core.data.distilled import digest, load, save
from ddrank_core.data.stored_views import About, Views
from ddrank_core.leaderboard import track
from ddrank_core.leaderboard.controls import CONTROLS
from ddrank_core.leaderboard.submission import load as load_submission
from ddrank_core.registry import default_registry
from ddrank_core.types import ImageSpace

FIXED = {
    "student": {"use": "convnet", "depth": 1, "width": 4},
    "recipe": {**RECIPE, "epochs": 2},
    "full_data": CONFIG["full_data"],
    "protocol": {"use": "strict", "repeats": 2, "learning_rates": [0.05], "validation": 0.2},
}
FLAGS = (
    *("--method", "Stripes", "--author", "A. Author", "--author", "B. Author", "--licence", "MIT"),
    *("--saw", "train images", "--saw", "train labels", "--paper", "https://example.org/p"),
    *("--code", "https://example.org/c", "--gpu-hours", "0.5", "--gpu", "a CPU"),
    *("--claimed", "0.9", "--source", "Author 2026, table 1"),
)
REAL_TRACKS = track.FOLDER
FOLDER = Path("submissions", "stripes", "arrays-ipc2")
CONTESTANTS = ["method", *CONTROLS]


def ddrank(*arguments: object) -> int:
    return launcher.main([str(argument) for argument in arguments])


def evaluated(folder: Path, *options: str) -> int:
    return ddrank("submission", "evaluate", folder, "--device", "cpu", "--workers", 1, "--quiet", *options)


def run_in(root: Path, **changes) -> None:
    """Run the tiny case in `root`, where its trials are kept."""
    (root / "case").mkdir()
    config = write_case(root / "case", **changes)
    assert ddrank("run", config, "--device", "cpu", "--workers", 1, "--quiet", "--out", root / "run") == 0


def submit_in(root: Path) -> None:
    assert ddrank("submission", "new", root / FOLDER, "--from", root / "run", *FLAGS) == 0


@contextmanager
def at_home_in(root: Path) -> Iterator[None]:
    """Keep trials in `root`, ask nobody, and have a fixed recipe for data sets of arrays."""
    (root / "tracks").mkdir(exist_ok=True)
    (root / "tracks" / "arrays.yaml").write_text(yaml.safe_dump(FIXED))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DDRANK_CACHE", str(root / "cache"))
        patched.setattr(track, "FOLDER", root / "tracks")
        patched.setattr(sys, "stdin", io.StringIO())
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Path]:
    """Return copies of a folder where the tiny case was run, then submitted, then evaluated."""
    root, copies = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("copies")
    with at_home_in(root):
        run_in(root)
        shutil.copytree(root, copies / "ran")
        submit_in(root)
        shutil.copytree(root, copies / "submitted")
        assert evaluated(root / FOLDER) == 0
        shutil.copytree(root, copies / "evaluated")
    return {"root": root, **{path.name: path for path in copies.iterdir()}}


@pytest.fixture(autouse=True)
def root(tmp_path) -> Iterator[Path]:
    """Give a folder in which everything of a test is."""
    with at_home_in(tmp_path):
        yield tmp_path


@pytest.fixture
def ran(root, whole) -> Path:
    shutil.copytree(whole["ran"], root, dirs_exist_ok=True)
    return root / "run"


@pytest.fixture
def submitted(root, whole) -> Path:
    shutil.copytree(whole["submitted"], root, dirs_exist_ok=True)
    return root / FOLDER


@pytest.fixture
def done(root, whole) -> Path:
    shutil.copytree(whole["evaluated"], root, dirs_exist_ok=True)
    return root / FOLDER


@pytest.fixture
def said(capsys):
    """Give a function that runs the launcher and returns its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = ddrank(*arguments)
        return code, *capsys.readouterr()

    return run


def evaluate(said, folder: Path, *options: str) -> tuple[int, str, str]:
    return said("submission", "evaluate", folder, "--device", "cpu", "--workers", 1, "--quiet", *options)


def records(folder: Path, name: str) -> dict[str, dict]:
    return {
        contestant: json.loads((folder / "results" / name / contestant / "record.json").read_bytes())
        for contestant in CONTESTANTS
    }


# new


def test_new_takes_the_recipe_and_the_distilled_set_from_the_run(submitted, tmp_path):
    folder = submitted
    about = yaml.safe_load((folder / "submission.yaml").read_text())
    size = (tmp_path / "case" / "distilled.safetensors").stat().st_size
    assert {
        "method": "Stripes",
        "authors": ["A. Author", "B. Author"],
        "paper": "https://example.org/p",
        "code": "https://example.org/c",
        "licence": "MIT",
        "dataset": "arrays",
        "ipc": 2,
        "saw": ["train images", "train labels"],
        "cost": {"gpu_hours": 0.5, "device": "a CPU"},
        "claimed": [{"accuracy": 0.9, "source": "Author 2026, table 1"}],
        "distilled": {
            "path": "distilled.safetensors",
            "sha256": digest(tmp_path / "case" / "distilled.safetensors"),
            "bytes": size,
        },
        "recipe": "run.yaml",
    } == about
    recipe = yaml.safe_load((folder / "run.yaml").read_text())
    assert {"path": "distilled.safetensors", "views": None, "ipc": 2} == recipe["distilled"]
    assert recipe["dataset"]["path"] == "../../../case/real.npz"
    assert ["distilled.safetensors", "run.yaml", "submission.yaml"] == sorted(
        p.name for p in folder.iterdir()
    )


def test_new_asks_for_what_no_option_says(tmp_path, ran):
    folder = tmp_path / "mine" / "arrays-ipc2"
    # Method and what it saw as offered; no paper, code, cost or claim.
    answers = "\nAda; Grace\nCC-BY-4.0\n\n\n\n\n\n"
    result = CliRunner().invoke(submission.command, ["new", str(folder), "--from", str(ran)], input=answers)
    assert result.exception is None, result.output
    about = yaml.safe_load((folder / "submission.yaml").read_text())
    assert ("mine", ["Ada", "Grace"], "CC-BY-4.0") == (about["method"], about["authors"], about["licence"])
    assert ["train images", "train labels"] == about["saw"]
    assert {"paper", "code", "cost", "claimed", "teacher"}.isdisjoint(about)


def test_new_names_the_teacher_of_soft_labels(root):
    recipe = {**RECIPE, "labels": "teacher", "loss": "kl"}
    run_in(root, recipe=recipe, teachers=[{"use": "convnet", "depth": 1, "width": 8}], scores=["ior"])
    submit_in(root)
    about = yaml.safe_load((root / FOLDER / "submission.yaml").read_text())
    assert about["teacher"].startswith("convnet, ")


@pytest.mark.parametrize(
    ("change", "options", "line"),
    [
        (
            "nothing",
            ["--from", "nowhere"],
            "record.json: cannot be read: No such file or directory; give the",
        ),
        ("record", [], "record.json: not a record; give the folder that 'ddrank run' left"),
        ("distilled", [], "distilled.safetensors has changed since the run; run it again"),
        ("exists", [], "arrays-ipc2: exists; choose another folder, or remove it"),
        ("name", [], "must be a folder METHOD/DATASET-ipc2, such as submissions/my-method/DATASET-ipc2"),
        ("nothing", ["--paper", "ftp://x"], "arrays-ipc2/submission.yaml: paper: must start with https://"),
        ("nothing", ["--method", "=SUM(1)"], "submission.yaml: method: starts with =, which a spreadsheet"),
        ("nothing", ["--saw", "everything"], "--saw: 'everything' is not one of train images, "),
    ],
)
def test_what_new_cannot_use_is_one_line_and_leaves_nothing(tmp_path, said, ran, change, options, line):
    run, folder = ran, tmp_path / "new" / "arrays-ipc2"
    match change:
        case "record":
            (run / "record.json").write_text('{"config": []}')
        case "distilled":
            record = json.loads((run / "record.json").read_text())
            record["data"]["distilled"]["sha256"] = 64 * "0"
            (run / "record.json").write_text(json.dumps(record))
        case "exists":
            folder.mkdir(parents=True)
        case "name":
            folder = tmp_path / "new" / "arrays-ipc3"
    code, out, err = said("submission", "new", folder, "--from", run, *FLAGS, *options)
    assert (code, out) == (2, "")
    assert 1 == err.count("\n")
    assert line in err
    assert ".unfinished" not in err
    assert change == "exists" or not (tmp_path / "new").exists()


def teach(network: torch.nn.Module) -> None:
    """Train a network until it is a teacher that may be asked: one that guesses is refused."""
    images, labels = map(torch.from_numpy, pictures(PER_CLASS, 0))
    pixels = images.unsqueeze(1).float()
    pixels = (pixels - pixels.mean()) / pixels.std()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(pixels), labels).backward()
        optimizer.step()


def test_new_takes_a_teachers_weights_along(root):
    network = ConvNet(depth=1, width=8).build(3, (1, 8, 8))
    teach(network)
    teacher = {"use": "convnet", "depth": 1, "width": 8, "checkpoint": "../weights.pt"}
    torch.save(network.state_dict(), root / "weights.pt")
    run_in(root, teachers=[teacher], scores=["ior"], recipe={**RECIPE, "labels": "teacher", "loss": "kl"})
    submit_in(root)
    assert (root / "weights.pt").read_bytes() == (root / FOLDER / "teacher-0.pt").read_bytes()
    recipe = yaml.safe_load((root / FOLDER / "run.yaml").read_text())
    assert "teacher-0.pt" == recipe["teachers"][0]["checkpoint"]
    assert evaluated(root / FOLDER, "--track", "own") == 0


def test_without_a_terminal_what_has_no_default_must_be_given(tmp_path, said, ran):
    folder = tmp_path / "new" / "arrays-ipc2"
    code, out, err = said("submission", "new", folder, "--from", ran, "--author", "Ada")
    assert (code, out) == (2, "")
    assert err.endswith("error: --licence: missing, and there is no terminal to ask at; give it\n")
    assert not (tmp_path / "new").exists()


# evaluate


def test_evaluate_leaves_a_record_of_the_method_and_every_control_on_both_tracks(done):
    own, fixed = records(done, "own"), records(done, "fixed")
    for found, width, epochs in ((own, 8, 4), (fixed, 4, 2)):
        for name, record in found.items():
            config = record["config"]
            assert (width, epochs) == (config["student"]["width"], config["recipe"]["epochs"])
            assert [2, 2, 2] == record["data"]["distilled"]["images_per_class"]
            assert all(record["scores"][score]["mean"] is not None for score in ("lrs", "ars", "ior"))
            assert name == record["data"]["distilled"]["info"].get("method", "method")
    assert digest(done / "distilled.safetensors") == own["method"]["data"]["distilled"]["sha256"]
    # Only records: pictures are of somebody's images.
    assert {"record.json"} == {path.name for path in (done / "results").rglob("*") if path.is_file()}


def test_evaluate_says_what_each_contestant_reached_and_how_much_was_trained(done, said):
    code, out, err = evaluate(said, done)
    assert (code, err) == (0, "")
    header, *rows = out.splitlines()[:11]
    assert ["track", "contestant", "HLR", "IOR", "IOR/HLR", "LRS", "ARS", "trials"] == header.split()
    assert [["own", name] for name in CONTESTANTS] == [row.split()[:2] for row in rows[:5]]
    lrs = records(done, "fixed")["noise"]["scores"]["lrs"]
    assert f"{lrs['mean']:.4f} ± {lrs['ci95']:.4f}" in rows[6]


def test_the_records_pass_the_check(done, said):
    code, out, _ = said("submission", "check", done)
    assert "error" not in out
    assert code == 0
    assert 10 == out.count("its scores follow from its")


def test_what_contestants_share_is_trained_once(done):
    found = records(done, "own")
    # The method's trials are the run's, from which the submission was made.
    assert all(trial["reused"] for trial in found["method"]["trials"])
    for name in CONTROLS:
        for trial in found[name]["trials"]:
            assert trial["reused"] == (trial["arm"] in ("full-hard", "rdm-any", "rdm-naug"))


def test_a_second_evaluation_trains_nothing_and_leaves_the_records_as_they_were(done, said):
    before = {path: path.read_bytes() for path in (done / "results").rglob("*.json")}
    stamps = {path: path.stat().st_mtime_ns for path in before}
    code, out, _ = evaluate(said, done)
    assert (code, 10) == (0, len(before))
    for row in [line for line in out.splitlines() if line.startswith(("own", "fixed"))]:
        trials, again = row.split("  ")[-1].split(", ")
        assert again == f"{trials.strip()} read back"
    assert before == {path: path.read_bytes() for path in before}
    assert stamps == {path: path.stat().st_mtime_ns for path in before}


def test_a_record_says_the_same_wherever_the_submission_lies(done, root, whole):
    for name, record in records(done, "own").items():
        config = record["config"]
        assert "../../../case/real.npz" == config["dataset"]["path"]
        place = "distilled.safetensors" if name == "method" else f"controls/{name}-"
        assert config["distilled"]["path"].startswith(place)
        assert config["distilled"]["path"] == record["data"]["distilled"]["path"]
        # What a data set says of its own source is its own.
        record["data"]["dataset"].pop("source")
        record["data"]["distilled"].pop("info")
        assert str(whole["root"]) not in json.dumps(record)


def test_one_track_may_be_asked_for_and_several_processes_leave_the_same_records(submitted, whole, said):
    assert evaluate(said, submitted, "--track", "fixed", "--workers", 2)[0] == 0
    assert ["fixed"] == [path.name for path in (submitted / "results").iterdir()]
    alone = records(whole["evaluated"] / FOLDER, "fixed")
    for name, record in records(submitted, "fixed").items():
        assert alone[name]["arms"] == record["arms"]


def test_a_learning_rate_that_the_set_brings_is_tried_on_the_own_track_alone_and_for_controls_too(root):
    run_in(root, own_rate=0.03, scores=["ior"])
    submit_in(root)
    folder = root / FOLDER
    assert evaluated(folder) == 0
    for name in CONTROLS:
        own, fixed = (records(folder, one)[name] for one in ("own", "fixed"))
        assert [0.01, 0.03, 0.1] == own["protocol"]["learning_rates"]
        assert [0.05] == fixed["protocol"]["learning_rates"]
        control = load(root / "cache" / own["config"]["distilled"]["path"])
        assert pytest.approx(0.03) == control.learning_rate
    assert [0.05] == records(folder, "fixed")["method"]["protocol"]["learning_rates"]


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_under_stored_soft_labels_a_control_gets_its_teachers(root, said, tmp_path, kind):
    soft = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    soft = soft if kind == "logits" else soft.softmax(dim=1)
    recipe = {**RECIPE, "labels": "soft", "loss": "sce"}
    teachers = [{"use": "convnet", "depth": 1, "width": 8}]
    run_in(root, soft=soft, soft_kind=kind, recipe=recipe, teachers=teachers, scores=["ior"])
    submit_in(root)
    folder = root / FOLDER
    code, _, err = evaluate(said, folder, "--track", "own")
    assert (code, err) == (0, "")
    found = records(folder, "own")
    assert 1 == len({record["teachers"][0]["digest"] for record in found.values()})
    noise = load(tmp_path / "cache" / found["noise"]["config"]["distilled"]["path"])
    assert (6, 3) == tuple(noise.soft_labels.shape)
    assert kind == noise.soft_kind
    # Independently: the cached teacher, built and asked by hand.
    expected = _answers(tmp_path / "cache" / "teachers", noise.images)
    expected = expected if kind == "logits" else expected.softmax(dim=1)
    assert torch.allclose(expected, noise.soft_labels, atol=1e-5)


def _answers(cache: Path, images: torch.Tensor) -> torch.Tensor:
    (weights,) = cache.glob("*.safetensors")
    torch.manual_seed(0)
    network = ConvNet(depth=1, width=8).build(3, (1, 8, 8))
    network.load_state_dict(load_file(weights))
    with torch.no_grad():
        return network.eval()(images)


def test_stored_views_are_the_methods_alone_so_that_its_recipe_has_no_controls(root, said):
    count = 6
    views = Views(
        image=torch.arange(count),
        box=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, 4).contiguous(),
        flip=torch.zeros(count, dtype=torch.bool),
        soft=torch.randn(count, 3, generator=torch.Generator().manual_seed(0)),
    )
    stored = About(epochs=1, count=count, num_classes=3, batch_size=4, mixed="no")
    stored_views.save([views], stored, root / "views.safetensors")
    recipe = {**RECIPE, "labels": "stored-views", "loss": "kl", "augmentation": []}
    run_in(
        root,
        recipe=recipe,
        distilled={"path": "distilled.safetensors", "views": "../views.safetensors"},
        teachers=[{"use": "convnet", "depth": 1, "width": 8}],
        scores=["ior"],
    )
    submit_in(root)
    folder = root / FOLDER
    assert digest(root / "views.safetensors") == digest(folder / "views.safetensors")
    code, _, err = evaluate(said, folder)
    assert code == 0
    assert err.endswith("replays views of the method's images: no controls on track own\n")
    assert ["method"] == [path.name for path in (folder / "results" / "own").iterdir()]
    assert len(CONTESTANTS) == len(records(folder, "fixed"))


@pytest.mark.parametrize(("space", "eps"), [("zca", 0.2), ("unit", None)])
def test_the_fixed_recipe_takes_over_the_whitening_that_images_are_in(submitted, space, eps):
    path = submitted / "distilled.safetensors"
    save(attrs.evolve(load(path), space=ImageSpace(kind=space)), path)
    recipe = yaml.safe_load((submitted / "run.yaml").read_text())
    (submitted / "run.yaml").write_text(yaml.safe_dump({**recipe, "whitening": {"eps": 0.2}}))
    config = track.config_of(load_submission(submitted), "fixed", default_registry())
    assert eps == (None if config.whitening is None else config.whitening.eps)


def test_a_broken_off_evaluation_leaves_whole_records_and_goes_on(submitted, said, monkeypatch):
    from ddrank_core.leaderboard import evaluate as module

    folder = submitted
    made, stopped = module.make_control, []

    def stops_at_herding(name, *arguments):
        if name == "herding" and not stopped:
            stopped.append(name)
            raise KeyboardInterrupt
        return made(name, *arguments)

    monkeypatch.setattr(module, "make_control", stops_at_herding)
    code, _, err = evaluate(said, folder, "--track", "own")
    assert (code, err) == (130, "interrupted\n")
    assert {"method", "noise", "random"} == {path.name for path in (folder / "results" / "own").iterdir()}
    assert evaluate(said, folder, "--track", "own")[0] == 0
    assert len(CONTESTANTS) == len(records(folder, "own"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("plugin", "recipe.loss: no loss 'acme/steals'"),
        ("dataset", "dataset: digits, but the submission is of arrays"),
        ("students", "students: a submission is evaluated with one; give student"),
        ("digest", "bytes, but submission.yaml declares "),
        ("ipc", "ipc: 3, but"),
        ("fixed", "dataset: there is no fixed recipe for arrays (there is one for other); evaluate it with"),
        ("link", "results: is a symbolic link, which a submission must not hold"),
        ("teacher", "teacher.pt is not in the submission"),
    ],
)
def test_what_evaluate_cannot_use_is_one_line_and_trains_nothing(submitted, said, tmp_path, change, line):
    folder = submitted
    recipe = yaml.safe_load((folder / "run.yaml").read_text())
    match change:
        case "plugin":
            recipe["recipe"]["loss"] = "acme/steals"
            (folder / "steals.py").write_text("raise SystemExit('executed')")
        case "dataset":
            recipe["dataset"] = "digits"
        case "students":
            recipe["students"] = [recipe.pop("student")]
        case "digest":
            path = folder / "distilled.safetensors"
            save(attrs.evolve(load(path), learning_rate=0.5), path)
        case "ipc":
            about = (folder / "submission.yaml").read_text()
            (folder / "submission.yaml").write_text(about.replace("ipc: 2", "ipc: 3"))
            recipe["distilled"]["ipc"] = None
            folder = folder.rename(folder.with_name("arrays-ipc3"))
        case "fixed":
            (tmp_path / "tracks" / "arrays.yaml").rename(tmp_path / "tracks" / "other.yaml")
        case "teacher":
            (tmp_path / "teacher.pt").write_bytes(b"")
            recipe["teachers"] = [{"use": "convnet", "checkpoint": str(tmp_path / "teacher.pt")}]
        case "link":
            (tmp_path / "elsewhere").mkdir()
            (folder / "results").symlink_to(tmp_path / "elsewhere")
    (folder / "run.yaml").write_text(yaml.safe_dump(recipe))
    code, out, err = evaluate(said, folder)
    assert (code, out) == (2, "")
    assert 1 == err.count("\n")
    assert line in err
    assert change == "link" or not (folder / "results").exists()
    assert not list((tmp_path / "elsewhere").glob("*"))


def test_evaluate_says_which_contestant_of_how_many(done, said):
    *_, err = said("submission", "evaluate", done, "--track", "own", "--device", "cpu", "--workers", 1)
    lines = [line for line in err.splitlines() if " of 5: " in line]
    assert [f"{i} of 5: {name}, own recipe" for i, name in enumerate(CONTESTANTS, 1)] == lines


@pytest.mark.parametrize("name", track.fixed_datasets())
def test_every_fixed_recipe_is_a_config_whose_network_takes_the_data_set(name):
    registry = default_registry()
    root = {} if name == "digits" else {"root": "datasets"}
    config = load_run(
        REAL_TRACKS / f"{name}.yaml",
        registry,
        [f"dataset={json.dumps({'use': name, **root})}", f"distilled={json.dumps({'path': __file__})}"],
    )
    facts = config.dataset.component.facts()
    with torch.random.fork_rng():
        network = config.student.component.build(facts.num_classes, facts.image_shape)
    assert (1, facts.num_classes) == tuple(network(torch.zeros(1, *facts.image_shape)).shape)
    # Whatever the submission brings: no soft labels, and the grid that all have.
    assert ("hard", "ce", ("dsa",)) == (
        config.recipe.labels.use,
        config.recipe.loss.use,
        tuple(chosen.use for chosen in config.recipe.augmentation),
    )
    flips = "flip" in config.recipe.augmentation[0].component.strategies
    assert flips == (name not in ("digits", "mnist", "svhn"))
    assert (f"fixed-{name}", SCORES) == (config.name, config.scores)
