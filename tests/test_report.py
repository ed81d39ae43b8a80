"""What a run leaves behind: the record, the tables, the pictures, the summary and the run folder."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
from PIL import Image

from ddrank_core import ComponentSpec, component, parameter
from ddrank_core.config import DistilledRef, Recipe, RunConfig, Teacher
from ddrank_core.errors import DDRankError
from ddrank_core.protocols import Loss
from ddrank_core.registry import Entry
from ddrank_core.report import arms as words
from ddrank_core.report.console import summary
from ddrank_core.report.figures import arms_png, distilled_png
from ddrank_core.report.folder import FILES, prepare, write
from ddrank_core.report.record import RunReport, build_record, components_of
from ddrank_core.report.tables import scores_csv, trials_csv
from ddrank_core.results import ArmResult, ScoreResult, TrialResult
from ddrank_core.structure import Chosen


@component
class Sized:
    size: float = parameter("any number", default=1.0)


@component
class Wrapping:
    inner: Chosen[Loss] = parameter("a component inside a component")


def chosen(kind, name, made=None, given=()):
    entry = Entry(kind, ComponentSpec(name, f"somewhere:{name}", "for the tests"), "acme-parts", "1.2")
    return Chosen(name, Sized() if made is None else made, entry, given)


@pytest.fixture
def config():
    recipe = Recipe(
        labels=chosen("label-mapping", "soft"),
        loss=chosen("loss", "acme/wrap", Wrapping(inner=chosen("loss", "ce"))),
        augmentation=(
            chosen("augmentation", "dsa", Sized(size=0.5), ("size",)),
            chosen("augmentation", "mixup"),
        ),
        optimizer=chosen("optimizer", "sgd"),
        schedule=chosen("schedule", "step", Sized(size=math.inf)),
        epochs=7,
    )
    return RunConfig(
        name="toy",
        dataset=chosen("dataset", "digits"),
        distilled=DistilledRef(path=Path("/nowhere/toy.safetensors")),
        student=chosen("architecture", "convnet"),
        teachers=(Teacher(network=chosen("architecture", "acme/net")),),
        recipe=recipe,
        protocol=chosen("protocol", "strict"),
        scores=("hlr", "ior", "ior_hlr", "ars"),
    )


def trial(arm, repeat, accuracy, **changes):
    values = {
        "phase": "final",
        "learning_rate": 0.01,
        "seed": 10 + repeat,
        "subset_seed": None,
        "validation_accuracy": None,
        "epoch": 7,
        "diverged": accuracy is None,
        "seconds": 1.5,
        "how": "alone, as it is",
    }
    return TrialResult(arm=arm, repeat=repeat, accuracy=accuracy, **{**values, **changes})


def arm(name, accuracies, mean, std, **more):
    kept = [accuracy for accuracy in accuracies if accuracy is not None]
    return ArmResult(
        name=name,
        accuracies=accuracies,
        learning_rates=(0.01,) * len(accuracies),
        mean=mean,
        std=std,
        n=len(kept),
        diverged=len(accuracies) - len(kept),
        **more,
    )


@pytest.fixture
def report(config):
    undefined = ScoreResult(
        name="ior_hlr", mean=None, std=None, ci95=None, n=0, reason="HLR is not positive: -0.01"
    )
    formula = ScoreResult(name="ars", mean=None, std=None, ci95=None, n=0, reason="=no, every trial diverged")
    full = ArmResult(
        name="full-hard",
        accuracies=(0.75,),
        learning_rates=(None,),
        mean=0.75,
        std=None,
        n=1,
        diverged=0,
        source="Toy et al. 2024",
    )
    return RunReport(
        config=config,
        device="cpu",
        precision="fp32",
        scores={
            "ars": formula,
            "hlr": ScoreResult(name="hlr", mean=0.25, std=0.125, ci95=0.5, n=2, values=(0.125, 0.375)),
            "ior": ScoreResult(name="ior", mean=-0.0625, std=None, ci95=None, n=1, values=(-0.0625,)),
            "ior_hlr": undefined,
            "lrs": ScoreResult(name="lrs", mean=0.3, std=None, ci95=None, n=1, values=(0.3,)),
        },
        arms={
            "rdm-any": arm("rdm-any", (0.5, None), 0.5, None),
            "syn-aug": arm("syn-aug", (0.4375, 0.5), 0.46875, 0.0625, same_as="syn-any"),
            "syn-any": arm("syn-any", (0.4375, 0.5), 0.46875, 0.0625),
            "rdm-aug": arm("rdm-aug", (None, None), None, None),
            "full-hard": full,
        },
        trials=(
            trial("syn-any", 0, None, phase="search", validation_accuracy=0.5, diverged=False),
            trial("syn-any", 0, 0.4375, reused=True),
            trial("rdm-any", 1, None, subset_seed=3),
        ),
        protocol={"name": "strict", "version": "1", "repeats": 2, "learning_rates": (0.01, 0.1)},
        components=components_of(config),
        versions={"python": "3.12.0", "torch": "2.8.0", "ddrank": "0.1.0"},
        data={"real": {"digest": "ab" * 32, "source": "toys"}},
        teachers=({"checkpoint": None, "accuracy": float("nan")},),
        notes=("The learning rate was chosen on the\x1b[2J test set.",),
        started="2026-01-02T03:04:05Z",
        seconds=83.0,
    )


def strict_json(raw):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(raw, parse_constant=refuse)


IMAGES_UNIT = np.linspace(0, 1, 4 * 8 * 8).reshape(4, 1, 8, 8)
LABELS = np.array([1, 0, 1, 0])


def write_run(report, folder):
    write(report, IMAGES_UNIT, LABELS, ("zero", "one"), folder)


# The record


def test_the_record_has_exactly_the_fields_of_its_schema(report):
    expected = {
        *("schema_version", "name", "scores", "arms", "trials", "config", "protocol", "components"),
        *("versions", "data", "teachers", "device", "precision", "notes", "started", "seconds"),
    }
    assert expected == set(build_record(report))


def test_the_record_holds_only_the_asked_scores_in_the_order_asked(report):
    assert ["hlr", "ior", "ior_hlr", "ars"] == list(build_record(report)["scores"])


def test_the_record_states_a_score_with_its_spread_and_repeats(report):
    expected = {"mean": 0.25, "std": 0.125, "ci95": 0.5, "n": 2, "values": [0.125, 0.375], "reason": None}
    assert expected == build_record(report)["scores"]["hlr"]


def test_the_record_states_why_a_score_is_undefined(report):
    expected = {
        **{"mean": None, "std": None, "ci95": None, "n": 0, "values": []},
        "reason": "HLR is not positive: -0.01",
    }
    assert expected == build_record(report)["scores"]["ior_hlr"]


def test_the_record_states_an_arm_with_its_diverged_trials(report):
    expected = {
        "accuracy": {"mean": 0.5, "std": None, "n": 1, "values": [0.5, None]},
        "learning_rates": [0.01, 0.01],
        "diverged": 1,
        "failed": 0,
        "same_as": None,
        "source": None,
    }
    assert expected == build_record(report)["arms"]["rdm-any"]


def test_the_record_says_whose_trials_an_alias_has_and_where_a_given_accuracy_is_from(report):
    arms = build_record(report)["arms"]
    assert ("syn-any", "Toy et al. 2024") == (arms["syn-aug"]["same_as"], arms["full-hard"]["source"])


def test_the_record_lists_every_trial(report):
    record = build_record(report)
    assert 3 == len(record["trials"])
    expected = {
        **{"arm": "rdm-any", "phase": "final", "repeat": 1, "learning_rate": 0.01, "seed": 11},
        **{"subset_seed": 3, "accuracy": None, "validation_accuracy": None, "epoch": 7},
        **{"diverged": True, "seconds": 1.5, "reused": False, "how": "alone, as it is"},
        "error": None,
    }
    assert expected == record["trials"][2]


def test_the_record_writes_an_infinite_parameter_as_text(report):
    assert "inf" == build_record(report)["config"]["recipe"]["schedule"]["size"]


def test_the_record_turns_a_result_that_is_not_finite_into_null(report):
    broken = ScoreResult(name="hlr", mean=float("nan"), std=math.inf, ci95=None, n=1, values=(-math.inf,))
    score = build_record(attrs.evolve(report, scores={**report.scores, "hlr": broken}))["scores"]["hlr"]
    assert (None, None, [None]) == (score["mean"], score["std"], score["values"])


def test_components_are_found_in_tuples_in_teachers_and_in_other_components(config):
    expected = {
        "dataset": "digits",
        "student": "convnet",
        "teachers[0].network": "acme/net",
        "recipe.labels": "soft",
        "recipe.loss": "acme/wrap",
        "recipe.loss.inner": "ce",
        "recipe.augmentation[0]": "dsa",
        "recipe.augmentation[1]": "mixup",
        "recipe.optimizer": "sgd",
        "recipe.schedule": "step",
        "protocol": "strict",
    }
    assert expected == {found["field"]: found["name"] for found in components_of(config)}


def test_a_component_is_recorded_with_its_owner_its_parameters_and_its_source(config):
    found = next(c for c in components_of(config) if c["field"] == "recipe.augmentation[0]")
    expected = {
        "field": "recipe.augmentation[0]",
        "kind": "augmentation",
        "name": "dsa",
        "distribution": "acme-parts",
        "version": "1.2",
        "from_file": False,
        "target": "somewhere:dsa",
        "source_digest": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "parameters": {"size": 0.5},
        "given": ["size"],
    }
    assert expected == found


def test_a_component_without_a_source_file_has_no_digest(config):
    made = attrs.make_class("Made", [])
    made.__module__ = "nowhere.to.be.found"
    changed = attrs.evolve(config, student=chosen("architecture", "acme/made", made()))
    found = next(c for c in components_of(changed) if c["field"] == "student")
    assert found["source_digest"] is None


# The tables


def test_scores_csv_has_a_line_for_each_asked_score(report):
    expected = (
        "score,mean,std,ci95,n,reason\n"
        "hlr,0.25,0.125,0.5,2,\n"
        "ior,-0.0625,,,1,\n"
        "ior_hlr,,,,0,HLR is not positive: -0.01\n"
        'ars,,,,0,"\'=no, every trial diverged"\n'
    )
    assert expected == scores_csv(report)


def test_trials_csv_has_a_line_for_each_trial(report):
    expected = (
        "arm,phase,repeat,learning_rate,seed,subset_seed,accuracy,validation_accuracy,epoch,diverged,seconds,"
        "reused,how,error\n"
        'syn-any,search,0,0.01,10,,,0.5,7,false,1.5,false,"alone, as it is",\n'
        'syn-any,final,0,0.01,10,,0.4375,,7,false,1.5,true,"alone, as it is",\n'
        'rdm-any,final,1,0.01,11,3,,,7,true,1.5,false,"alone, as it is",\n'
    )
    assert expected == trials_csv(report)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "' =1"),
        ("a-b, 'c' \"d\"\ne", "a-b, 'c' \"d\"\ne"),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_written_as_text(report, text, expected):
    named = attrs.evolve(report, trials=(trial(text, 0, 0.5),))
    rows = list(csv.DictReader(io.StringIO(trials_csv(named), newline="")))
    assert expected == rows[0]["arm"]


# The pictures


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_each_pixel_of_a_distilled_image_is_drawn_as_a_square_of_whole_pixels(tmp_path):
    # Names of one letter leave a left edge of 16 + 12 + 10, under a title of 52 pixels.
    distilled_png(IMAGES_UNIT, LABELS, ("a", "b"), tmp_path / "d.png")
    picture = pixels(tmp_path / "d.png")
    title = "Distilled images: 2 classes, 2 images each"
    assert (52 + 2 * 96 + 4 + 16, 2 * 16 + 11 * len(title), 3) == picture.shape
    places = {1: (52, 38), 3: (52, 38 + 96 + 4), 0: (52 + 96 + 4, 38), 2: (52 + 96 + 4, 38 + 96 + 4)}
    for index, (top, left) in places.items():
        tile = picture[top : top + 96, left : left + 96]
        grey = np.rint(255 * IMAGES_UNIT[index, 0]).astype(np.uint8)
        expected = np.kron(grey, np.ones((12, 12), np.uint8))[:, :, None].repeat(3, axis=2)
        np.testing.assert_array_equal(expected, tile)


def test_a_colour_image_is_drawn_in_its_colours_clipped_to_the_unit_range(tmp_path):
    image = np.zeros((1, 3, 32, 32))
    image[0, 0], image[0, 1], image[0, 2] = 1.7, -0.4, 0.2
    distilled_png(image, np.array([0]), ("a",), tmp_path / "d.png")
    tile = pixels(tmp_path / "d.png")[80 : 80 + 96, 16 : 16 + 96].reshape(-1, 3)
    assert {(255, 0, 51)} == {tuple(map(int, pixel)) for pixel in tile}


def test_classes_with_one_image_each_stand_side_by_side_ten_in_a_row(tmp_path):
    grey = np.arange(1, 13) / 20
    images = np.ones((12, 1, 8, 8)) * grey[:, None, None, None]
    distilled_png(images, np.arange(12), ["c"] * 12, tmp_path / "d.png")
    picture = pixels(tmp_path / "d.png")
    # A title of 52 pixels, then rows of a name of 28 and a tile of 96; tiles start every 104 pixels.
    for place, value in enumerate(np.rint(255 * grey).astype(np.uint8)):
        top, left = 80 + place // 10 * (96 + 28), 16 + place % 10 * 104
        assert (picture[top : top + 96, left : left + 96] == value).all()


def test_at_most_20_classes_and_10_images_of_each_are_drawn(tmp_path):
    labels = np.arange(25).repeat(12)
    distilled_png(np.zeros((300, 1, 8, 8)), labels, ["c"] * 25, tmp_path / "d.png")
    black = (pixels(tmp_path / "d.png") == 0).all(axis=2)
    columns = black[52 + 48, 38:].reshape(-1)
    assert (10 * 96, 20 * 96) == (int(columns.sum()), int(black[52:, 38 + 48].sum()))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1] * 10, "Distilled images: 10 classes, 1 image each"),
        ([50] * 10, "Distilled images: 10 classes, first 10 of 50 images each"),
        ([10] * 100, "Distilled images: first 20 of 100 classes, 10 images each"),
        ([0, 2], "Distilled images: 2 classes, 0 to 2 images each"),
    ],
)
def test_the_title_says_what_is_left_out(counts, expected):
    from ddrank_core.report.figures import distilled_title

    assert expected == distilled_title(np.array(counts))


def test_a_large_image_is_drawn_no_larger_than_256_pixels(tmp_path):
    distilled_png(np.zeros((1, 3, 600, 300)), np.array([0]), ("a",), tmp_path / "d.png")
    black = (pixels(tmp_path / "d.png") == 0).all(axis=2)[80:, 16:]
    assert (200, 100) == (int(black[:, 0].sum()), int(black[0].sum()))


def test_the_same_values_give_the_same_bytes(report, tmp_path):
    for name in ("first.png", "second.png"):
        arms_png(report.arms, report.scores, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_the_pictures_do_not_follow_the_users_matplotlib_settings(report, tmp_path):
    import matplotlib

    arms_png(report.arms, report.scores, tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 30, "savefig.bbox": "tight", "axes.facecolor": "black"}):
        arms_png(report.arms, report.scores, tmp_path / "styled.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()


def test_an_arm_is_marked_at_its_accuracy(tmp_path):
    # 50 % alone makes the axis 49..51 %, which lies on the pixels 410..1010: the middle is 710.
    given = arm("full-hard", (0.5,), 0.5, None, source="Toy et al. 2024")
    arms_png({"full-hard": given}, {}, tmp_path / "a.png")
    marked = (pixels(tmp_path / "a.png")[56:102, 420:1000] == 0).all(axis=2)
    assert 710 == pytest.approx(420 + np.nonzero(marked)[1].mean(), abs=1)


def test_the_arms_are_drawn_in_reading_order(report, tmp_path):
    order = [found.name for found in words.in_order(report.arms)]
    assert ["full-hard", "syn-any", "rdm-any", "syn-aug", "rdm-aug"] == order
    arms_png(report.arms, report.scores, tmp_path / "a.png")
    height, width, _ = pixels(tmp_path / "a.png").shape
    assert (56 + 5 * 46 + 72 + 5 * 22, 1280) == (height, width)


def test_a_plot_without_any_accuracy_is_drawn(tmp_path):
    arms_png({"rdm-aug": arm("rdm-aug", (None,), None, None)}, {}, tmp_path / "a.png")
    assert (56 + 46 + 72, 1280, 3) == pixels(tmp_path / "a.png").shape


def test_the_interval_of_an_arm_is_student_t():
    # t(0.975, 4) = 2.776445 in any printed table.
    five = arm("syn-any", (0.1,) * 5, 0.1, 0.02)
    assert 2.776445 * 0.02 / math.sqrt(5) == pytest.approx(words.ci95(five), rel=1e-6)
    assert words.ci95(arm("syn-any", (0.1,), 0.1, None)) is None


# The summary


def test_the_summary_says_what_a_reader_asks_first(report):
    expected = """\
toy: 3 trials (1 read back) in 1 min 23 s on cpu, fp32, protocol strict 1

score    better  mean ± 95% CI         n
HLR      lower   25.00 ± 50.00 points  2  accuracy lost against the full data, hard labels
IOR      higher  -6.25 points          1  accuracy gained over random real images
IOR/HLR  higher  undefined             0  HLR is not positive: -0.01
ARS      higher  undefined             0  =no, every trial diverged

arm        accuracy ± std  n  learning rate
full-hard  75.00 %         1  -              all real images, hard labels; given, from Toy et al. 2024
syn-any    46.88 ± 6.25 %  2  0.01           distilled images, the method's recipe
rdm-any    50.00 %         1  0.01           random real images, the same recipe; 1 diverged and left out
syn-aug    46.88 ± 6.25 %  2  0.01           distilled images, recipe with augmentation; the trials of syn-any
rdm-aug    undefined       0  0.01           random real images, recipe with augmentation; """
    expected += "undefined: every trial diverged\n"
    expected += "\nnote: The learning rate was chosen on the [2J test set.\n"
    assert expected == summary(report)


def test_the_summary_can_be_printed_in_ascii(report):
    text = summary(report, encoding="ascii")
    assert "25.00 +/- 50.00 points" in text
    assert text.isascii()


def test_a_reader_never_meets_a_negative_zero():
    assert ("0.00", "0.000") == (words.SCORES["hlr"].number(-1e-9), words.SCORES["ior_hlr"].number(-1e-9))


# The run folder


def test_a_run_folder_holds_these_files_and_no_others(report, tmp_path):
    write_run(report, tmp_path / "runs" / "toy")
    assert sorted(FILES) == sorted(path.name for path in (tmp_path / "runs" / "toy").iterdir())


def test_the_stored_record_is_strict_json_and_equals_the_record(report, tmp_path):
    write_run(report, tmp_path)
    assert build_record(report) == strict_json((tmp_path / "record.json").read_bytes())


def test_a_name_that_is_not_unicode_is_stored(report, tmp_path):
    write_run(attrs.evolve(report, notes=("from /data/\udc80",)), tmp_path)
    assert ["from /data/\udc80"] == strict_json((tmp_path / "record.json").read_bytes())["notes"]


def test_a_run_replaces_an_earlier_run_of_the_same_folder(report, tmp_path):
    write_run(report, tmp_path)
    write_run(attrs.evolve(report, seconds=1.0), tmp_path)
    assert 1.0 == strict_json((tmp_path / "record.json").read_bytes())["seconds"]
    assert len(FILES) == len(list(tmp_path.iterdir()))


def test_a_write_that_breaks_off_leaves_the_run_folder_as_it_was(report, tmp_path):
    write_run(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(IndexError):
        write(attrs.evolve(report, seconds=1.0), np.zeros((4, 8)), LABELS, ("zero", "one"), tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_record_is_the_last_file_to_appear(report, tmp_path):
    write_run(report, tmp_path)
    (tmp_path / "arms.png").unlink()
    (tmp_path / "arms.png" / "in the way").mkdir(parents=True)
    with pytest.raises(DDRankError, match=r"cannot be written"):
        write_run(report, tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert ["arms.png", "distilled.png", "scores.csv", "trials.csv"] == left


def test_a_run_folder_that_is_a_file_is_one_line(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DDRankError) as writing:
        write_run(report, tmp_path / "file")
    with pytest.raises(DDRankError) as preparing:
        prepare(tmp_path / "file", report.config)
    assert str(writing.value) == (
        f"{tmp_path / 'file'}: the run folder cannot be written: File exists; "
        "make room or choose another folder, and run again: finished trials are kept"
    )
    assert str(preparing.value) == f"--out {tmp_path / 'file'}: cannot be a run folder: File exists"
    assert preparing.value.exit_code == 2


def test_preparing_a_run_folder_leaves_it_empty(report, tmp_path):
    prepare(tmp_path / "runs" / "toy", report.config)
    assert [] == list((tmp_path / "runs" / "toy").iterdir())


def test_the_record_of_another_config_is_never_replaced(report, tmp_path):
    write_run(report, tmp_path)
    prepare(tmp_path, report.config)
    with pytest.raises(DDRankError, match="holds the record of another config; choose another folder"):
        prepare(tmp_path, attrs.evolve(report.config, seed=99))
    assert (tmp_path / "record.json").is_file()


# Its weight


def test_the_report_modules_import_nothing_heavy():
    code = (
        "import sys, ddrank_core.report.folder, ddrank_core.report.figures, ddrank_core.report.console;"
        "print([m for m in ('matplotlib', 'numpy', 'scipy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys, tempfile; from pathlib import Path; from ddrank_core.report.figures import arms_png;"
        "arms_png({}, {}, Path(tempfile.mkdtemp()) / 'a.png');"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False\n" == done.stdout
