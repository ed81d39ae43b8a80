"""Stored views: the file, the replay against the original's loop, FKD folders, a run that trains on them."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from ddrank_labels.stored_views import StoredViewLabels
from safetensors.torch import load_file, save_file
from tiny_case import CLASSES, CONFIG, RECIPE, SIDE, prepared_case, run_case
from torch.nn import functional as F
from torch.utils.data import BatchSampler, RandomSampler
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as TF

from ddrank_core import ConfigError
from ddrank_core.cli.import_ import command
from ddrank_core.data import distilled, stored_views
from ddrank_core.data.stored_views import About, Views
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.material import Material
from ddrank_core.engine.replay import replayed
from ddrank_core.engine.seed import derive
from ddrank_core.engine.train import Setting, build, train
from ddrank_core.errors import DataError, DDRankError
from ddrank_core.types import DistilledSet, ImageSpace

COUNT, HEIGHT, WIDTH = 10, 12, 9
BATCH = 4
MIXED = ("no", "paste", "weight")
METADATA = {
    "format": "ddrank-views",
    "format_version": "1",
    "batch_size": "4",
    "soft_kind": "logits",
    "soft_temperature": "1.0",
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))


def draw_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop in pixels."""
    return RandomResizedCrop.get_params(torch.empty(3, height, width), [0.08, 1.0], [3 / 4, 4 / 3])


def draw_views(
    mixed: str,
    seed: int,
    *,
    count: int = COUNT,
    batch: int = BATCH,
    classes: int = CLASSES,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> Views:
    """Draw an epoch of views, mixed within batches."""
    torch.manual_seed(seed)
    height, width = size
    boxes = torch.tensor([draw_box(*size) for _ in range(count)], dtype=torch.float32)
    more: dict[str, torch.Tensor] = {}
    if mixed != "no":
        starts = range(0, count, batch)
        more["partner"] = torch.cat([torch.randperm(min(batch, count - s)) + s for s in starts])
    if mixed == "paste":
        corners = torch.stack([torch.randint(0, side + 1, (count, 2)).sort().values for side in size], dim=2)
        more["paste"] = corners.reshape(count, 4)
    if mixed == "weight":
        more["weight"] = torch.rand(count)
    return Views(
        image=torch.randperm(count),
        box=boxes / torch.tensor([height, width, height, width]),
        flip=torch.rand(count) < 0.5,
        soft=torch.randn(count, classes),
        **more,
    )


def about(mixed: str, epochs: int = 3, **changes) -> About:
    values = {"epochs": epochs, "count": COUNT, "num_classes": CLASSES, "batch_size": BATCH, "mixed": mixed}
    return About(**{**values, **changes})


def open_views(path: Path, **changes) -> stored_views.StoredViews:
    return stored_views.load(
        path, **{"images": COUNT, "num_classes": CLASSES, "size": (HEIGHT, WIDTH), **changes}
    )


def refused(call, *args, **kwargs) -> str:
    """Return the one line that a call is refused with."""
    with pytest.raises(DDRankError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- the file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", MIXED)
@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_views_come_back_as_they_were_stored(tmp_path, mixed, dtype):
    epochs = [draw_views(mixed, seed) for seed in range(3)]
    path = tmp_path / "views.safetensors"
    stored_views.save(epochs, about(mixed, soft_dtype=dtype), path)
    views = open_views(path)
    assert (3, COUNT, CLASSES, BATCH, mixed) == (
        views.epochs,
        views.count,
        views.num_classes,
        views.batch_size,
        views.mixed,
    )
    # After the last epoch the first comes again.
    for number, expected in enumerate([*epochs, epochs[0]]):
        actual = views.epoch(number)
        for field in attrs.fields(Views):
            want, got = getattr(expected, field.name), getattr(actual, field.name)
            if field.name == "soft" and dtype == "F16":
                want = want.half()
            assert (want is None) == (got is None), field.name
            assert want is None or torch.equal(want, got), field.name
    assert views.epoch(1, with_labels=False).soft is None


def test_the_file_is_plain_safetensors(tmp_path):
    path = tmp_path / "views.safetensors"
    epochs = [draw_views("paste", seed) for seed in range(3)]
    stored_views.save(epochs, about("paste"), path)
    tensors = load_file(path)
    assert {"image", "box", "flip", "soft", "partner", "paste"} == set(tensors)
    assert torch.equal(torch.stack([e.soft for e in epochs]), tensors["soft"])
    assert torch.equal(torch.stack([e.paste for e in epochs]).int(), tensors["paste"])
    # The library's own writer gives a file that is read alike.
    save_file(tensors, tmp_path / "again.safetensors", METADATA)
    again = open_views(tmp_path / "again.safetensors").epoch(2)
    assert torch.equal(epochs[2].soft, again.soft)


def test_epochs_are_written_as_they_come(tmp_path):
    sizes = []

    def epochs():
        for seed in range(3):
            yield draw_views("no", seed)
            sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))

    stored_views.save(epochs(), about("no"), tmp_path / "views.safetensors")
    assert sorted(sizes) == sizes
    assert ["views.safetensors"] == [file.name for file in tmp_path.iterdir()]


def test_a_file_that_cannot_be_finished_does_not_replace_one(tmp_path):
    path = tmp_path / "views.safetensors"
    path.write_text("before")
    good = draw_views("no", 0)
    bad = attrs.evolve(good, soft=good.soft.index_fill(0, torch.tensor([3]), float("nan")))
    assert "epoch 1: soft: NaN" in refused(stored_views.save, [good, bad], about("no", 2), path)
    assert "1 epochs were given, not 2" in refused(stored_views.save, [good], about("no", 2), path)
    wanting = refused(stored_views.save, [good], about("no", num_classes=10**15), path)
    assert "GiB, and only" in wanting
    assert "before" == path.read_text()
    assert [path] == list(tmp_path.iterdir())
    assert "cannot be written" in refused(stored_views.save, [good], about("no", 1), tmp_path / "no" / "x")


def damage(name, change):
    def apply(tensors, metadata):
        tensors[name] = change(tensors[name])

    return apply


def at(value):
    """Return a change that puts a value at one place of the second epoch."""

    def change(tensor):
        tensor = tensor.clone()
        tensor[1, 5] = torch.as_tensor(value, dtype=tensor.dtype)
        return tensor

    return change


def described(**changes):
    def apply(tensors, metadata):
        metadata.update(changes)

    return apply


FAULTS = [
    ("not a file of stored views", described(format="ddrank-distilled")),
    ("not a file of stored views ('ddrank-views' 1)", described(format_version="2")),
    ("batch_size or soft_temperature: missing, or not a number", described(batch_size="four")),
    ("batch_size and soft_temperature must be above 0", described(batch_size="0")),
    ('soft_kind: "guesses", but must be logits or probabilities', described(soft_kind="guesses")),
    ("soft_temperature: 4, but only probabilities can have one", described(soft_temperature="4")),
    ("partner: must be a place of the same batch of 3", described(batch_size="3")),
    ("box: is missing, but must be F32 [2, 10, 4]", lambda tensors, metadata: tensors.pop("box")),
    ("partner: is missing, but must be I32 [2, 10]", lambda tensors, metadata: tensors.pop("partner")),
    ("more: is I32 [2, 10], but must be missing", lambda t, m: t.update(more=t["image"].clone())),
    ("paste: is I32 [2, 10, 4], but must be missing", lambda t, m: t.update(weight=torch.rand(2, COUNT))),
    ("image: is I64 [2, 10], but must be I32", damage("image", lambda t: t.long())),
    ("flip: is U8 [2, 9], but must be U8 [2, 10]", damage("flip", lambda t: t[:, 1:].contiguous())),
    ("soft: must be F16 or F32 [epochs, views, classes], not F64", damage("soft", lambda t: t.double())),
    ("soft: 2 classes, but the data set has 3", damage("soft", lambda t: t[..., :2].contiguous())),
    ("epoch 1: image: must be from 0 to 9", damage("image", at(10))),
    ("epoch 1: box: not whole pixels of 12x9 images", damage("box", at([0.1, 0, 0.5, 1]))),
    ("epoch 1: box: must be shares", damage("box", at([1 / 2, 0, 7 / 12, 1]))),
    ("epoch 1: box: not whole pixels", damage("box", at([0, 0, float("nan"), 1]))),
    ("box: must be shares (top, left, height, width)", damage("box", at([0, 0, 0, 1]))),
    ("epoch 1: partner: must be a place", damage("partner", at(8))),
    ("epoch 1: partner: must be a place of the same batch of 4", damage("partner", at(-1))),
    ("epoch 1: paste: must be boxes in 12x9 pixels", damage("paste", at([0, 0, 3, 10]))),
    ("paste: must be boxes", damage("paste", at([4, 0, 3, 1]))),
]


@pytest.mark.parametrize(("message", "change"), FAULTS)
def test_every_fault_of_a_file_is_one_line(tmp_path, message, change):
    path = tmp_path / "views.safetensors"
    stored_views.save([draw_views("paste", seed) for seed in range(2)], about("paste", 2), path)
    tensors = load_file(path)
    metadata = dict(METADATA)
    change(tensors, metadata)
    save_file(tensors, path, metadata)
    said = refused(open_views, path)
    assert said.startswith(str(path))
    assert message in said


def test_weights_lie_between_0_and_1(tmp_path):
    path = tmp_path / "views.safetensors"
    views = draw_views("weight", 0)
    stored_views.save([attrs.evolve(views, weight=views.weight + 1)], about("weight", 1), path)
    assert "weight: must be from 0 to 1" in refused(open_views, path)


def test_labels_are_checked_when_their_epoch_is_read(tmp_path):
    path = tmp_path / "views.safetensors"
    views = draw_views("no", 0)
    kind = about("no", 1, soft_kind="probabilities", soft_temperature=4.0)
    said = refused(stored_views.save, [views], kind, path)
    assert "soft: probabilities must not be negative, and sum to 1" in said
    stored_views.save([attrs.evolve(views, soft=views.soft.softmax(dim=1))], kind, path)
    opened = open_views(path)
    assert (4.0, "probabilities") == (opened.soft_temperature, opened.soft_kind)
    raw = bytearray(path.read_bytes())
    start = raw.index(opened.epoch(0).soft.numpy().tobytes())
    raw[start : start + 4] = np.float32("nan").tobytes()
    path.write_bytes(raw)
    assert "epoch 0: soft: NaN" in refused(open_views(path).epoch, 0)


def test_what_is_no_such_file_is_one_line(tmp_path):
    path = tmp_path / "views.safetensors"
    assert "cannot be read as stored views" in refused(open_views, path)
    path.write_bytes(b"nothing of the kind")
    assert "cannot be read as stored views" in refused(open_views, path)
    stored_views.save([draw_views("no", 0)], about("no", 1), path)
    path.write_bytes(path.read_bytes()[:-3])
    assert "cannot be read as stored views" in refused(open_views, path)


# -- the replay --------------------------------------------------------------------------------


def original_batch(images, labels, config, image, size):
    """Show a stored batch as the originals do: `images` a list of pictures, PIL's or tensors [C, H, W].

    VILA-Lab/SRe2L's fkd_load mode, RandomResizedCropWithCoords to mix_aug.
    """
    coords, flips, mix_index, mix_lam, mix_bbox, soft = config[:6]
    shown = []
    for place, index in enumerate(image.tolist()):
        picture = images[index]
        height, width = size
        i, j = coords[place][0].item() * height, coords[place][1].item() * width
        h, w = coords[place][2].item() * height, coords[place][3].item() * width
        if isinstance(picture, torch.Tensor):
            i, j, h, w = round(i), round(j), round(h), round(w)
        picture = TF.resized_crop(picture, i, j, h, w, list(size), InterpolationMode.BILINEAR, antialias=True)
        if flips[place]:
            picture = TF.hflip(picture)
        shown.append(picture if isinstance(picture, torch.Tensor) else TF.to_tensor(picture))
    batch = torch.stack(shown)
    if mix_bbox is not None:
        bbx1, bby1, bbx2, bby2 = mix_bbox
        batch[:, :, bbx1:bbx2, bby1:bby2] = batch[mix_index, :, bbx1:bbx2, bby1:bby2]
    elif mix_lam is not None:
        batch = mix_lam * batch + (1 - mix_lam) * batch[mix_index]
    return batch, labels[image], soft.float()


def image_set(images, labels, views, **changes) -> ImageSet:
    return ImageSet(images=images, labels=labels, num_classes=CLASSES, views=views, **changes)


def training_of(tmp_path, batch_size: int):
    """Return a real training that replays views."""
    (tmp_path / "case").mkdir(exist_ok=True)
    prepared = replaying_case(tmp_path / "case", "no")
    arm = next(arm for arm in prepared.plan.trained if arm.name == "syn-any")
    return attrs.evolve(arm.training, batch_size=batch_size)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_replay_shows_what_the_original_shows_place_by_place(tmp_path, channels):
    views = draw_views("paste", 3)
    # The originals paste one box in a whole batch.
    paste = views.paste[torch.arange(COUNT) // BATCH * BATCH]
    views = attrs.evolve(views, paste=paste)
    path = tmp_path / "views.safetensors"
    stored_views.save([views], about("paste", 1), path)
    images = torch.randn(COUNT, channels, HEIGHT, WIDTH)
    labels = torch.randint(0, CLASSES, (COUNT,))

    shown = list(replayed(image_set(images, labels, open_views(path)), training_of(tmp_path, BATCH), 0))

    assert [4, 4, 2] == [len(view.images) for view in shown]
    for number, view in enumerate(shown):
        places = slice(number * BATCH, (number + 1) * BATCH)
        partner = views.partner[places] - number * BATCH
        top, left, bottom, right = paste[places.start].tolist()
        config = [views.box[places], views.flip[places], partner, 0.3, (top, left, bottom, right)]
        config.append(views.soft[places])
        batch, hard, soft = original_batch(list(images), labels, config, views.image[places], (HEIGHT, WIDTH))
        torch.testing.assert_close(view.images, batch, atol=1e-5, rtol=0)
        assert torch.equal(hard, view.hard)
        assert torch.equal(soft, view.soft)
        assert torch.equal(partner, view.mixing.partner)
        left_over = 1 - (bottom - top) * (right - left) / (HEIGHT * WIDTH)
        torch.testing.assert_close(view.mixing.weight, torch.full((len(batch),), left_over))


def test_every_place_may_have_a_box_and_a_weight_of_its_own(tmp_path):
    training = training_of(tmp_path, BATCH)
    images, labels = torch.randn(COUNT, 1, HEIGHT, WIDTH), torch.zeros(COUNT, dtype=torch.int64)
    for mixed in ("paste", "weight"):
        views = draw_views(mixed, 4)
        path = tmp_path / f"{mixed}.safetensors"
        stored_views.save([views], about(mixed, 1), path)
        shown = torch.cat(
            [v.images for v in replayed(image_set(images, labels, open_views(path)), training, 0)]
        )
        plain = attrs.evolve(views, partner=None, paste=None, weight=None)
        stored_views.save([plain], about("no", 1), path)
        own = torch.cat(
            [v.images for v in replayed(image_set(images, labels, open_views(path)), training, 0)]
        )
        for place in range(COUNT):
            other = own[views.partner[place]]
            expected = own[place].clone()
            if mixed == "paste":
                top, left, bottom, right = views.paste[place].tolist()
                expected[:, top:bottom, left:right] = other[:, top:bottom, left:right]
            else:
                weight = views.weight[place].item()
                expected = weight * own[place] + (1 - weight) * other
            torch.testing.assert_close(shown[place], expected, atol=1e-6, rtol=0)


def test_random_images_get_the_same_views_and_are_labelled_by_teachers(tmp_path):
    views = draw_views("paste", 5)
    path = tmp_path / "views.safetensors"
    stored_views.save([views], about("paste", 1), path)
    training = training_of(tmp_path, BATCH)
    images, labels = torch.randn(COUNT, 1, HEIGHT, WIDTH), torch.randint(0, CLASSES, (COUNT,))
    own = image_set(images, labels, open_views(path))
    stand_ins = attrs.evolve(own, views_are_labelled=False)
    asked = []

    def teachers(batch):
        asked.append(batch)
        return torch.ones(len(batch), CLASSES), torch.full((len(batch), CLASSES), 3.0)

    mapping = StoredViewLabels()
    for labelled, unlabelled in zip(
        replayed(own, training, 0), replayed(stand_ins, training, 0), strict=True
    ):
        assert torch.equal(labelled.images, unlabelled.images)
        assert mapping(labelled, teachers).soft is labelled.soft
        assert not asked
        targets = mapping(unlabelled, teachers)
        assert torch.equal(unlabelled.images, asked.pop())
        assert torch.equal(torch.full((len(unlabelled.images), CLASSES), 2.0), targets.soft)
        assert targets.partner_soft is None
        assert torch.equal(unlabelled.hard[unlabelled.mixing.partner], targets.partner_hard)
    with pytest.raises(ConfigError, match="need a teacher"):
        mapping(unlabelled, lambda batch: ())


# -- a run -------------------------------------------------------------------------------------


def replaying_case(folder: Path, mixed: str, *overrides: str, epochs: int = 2, **changes):
    """Return the tiny evaluation with stored views of its six images."""
    size = (SIDE, SIDE)
    stored = [draw_views(mixed, seed, count=6, size=size) for seed in range(epochs)]
    stored_views.save(stored, about(mixed, epochs, count=6, **changes), folder / "views.safetensors")
    recipe = {**RECIPE, "labels": "stored-views", "loss": {"use": "kl", "temperature": 4}}
    return prepared_case(
        folder,
        *overrides,
        recipe={**recipe, "augmentation": []},
        distilled={"path": "distilled.safetensors", "views": "views.safetensors"},
        teachers=[dict(CONFIG["student"])],
        scores=["hlr", "ior"],
    )


@pytest.mark.parametrize("overrides", [(), ("recipe.micro_batch=3",)])
def test_a_student_trains_on_exactly_the_stored_views_in_their_order(tmp_path, overrides):
    prepared = replaying_case(tmp_path, "paste", *overrides)
    arm = next(arm for arm in prepared.plan.trained if arm.name == "syn-any")
    trial = prepared.plan.first_trials(arm, prepared.plan.rungs[0], prepared.plan.candidates)[0]
    setting = Setting(
        device=prepared.device, precision="fp32", space=prepared.space, teachers=lambda images: ()
    )
    data = Material(prepared).of(arm.training, trial, setting.teachers)
    architecture = prepared.config.student.component
    network = build(architecture, CLASSES, prepared.real.image_shape, seed=7)
    assert train(network, data, arm.training, 0.05, 7, setting, lambda epoch: None)

    torch.manual_seed(derive(7, "weights"))
    reference = architecture.build(CLASSES, prepared.real.image_shape)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9, weight_decay=0.0005)
    images = prepared.space.normalise(prepared.distilled.images)
    # Four epochs of two stored ones, six places in batches of four.
    for epoch in (0, 1, 0, 1):
        views = draw_views("paste", epoch, count=6, size=(SIDE, SIDE))
        plain = torch.stack(
            [
                original_batch(
                    list(images),
                    prepared.distilled.labels,
                    [views.box[p, None], views.flip[p, None], None, None, None, views.soft],
                    views.image[p, None],
                    (SIDE, SIDE),
                )[0][0]
                for p in range(6)
            ]
        )
        shown = plain.clone()
        for place in range(6):
            top, left, bottom, right = views.paste[place].tolist()
            box = (slice(None), slice(top, bottom), slice(left, right))
            shown[place][box] = plain[views.partner[place]][box]
        for start in (0, 4):
            optimizer.zero_grad()
            student = F.log_softmax(reference(shown[start : start + 4]) / 4, dim=1)
            teacher = F.softmax(views.soft[start : start + 4] / 4, dim=1)
            F.kl_div(student, teacher, reduction="batchmean").backward()
            optimizer.step()
    for expected, actual in zip(reference.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(expected, actual, atol=1e-5, rtol=1e-4)


def test_a_whole_run_replays_views_in_every_soft_arm(tmp_path):
    prepared = replaying_case(tmp_path, "weight")
    outcome = run_case(prepared, tmp_path / "one")
    assert outcome.scores["ior"].mean is not None
    assert {"full-hard", "syn-hard", "syn-any", "rdm-any"} == set(outcome.arms)

    # Other labels make other soft arms of the distilled set; what was trained with hard labels stays.
    path = tmp_path / "views.safetensors"
    stored = open_views(path, images=6, size=(SIDE, SIDE))
    changed = [attrs.evolve(stored.epoch(e), soft=-stored.epoch(e).soft) for e in range(stored.epochs)]
    stored_views.save(changed, about("weight", stored.epochs, count=6), path)
    again = run_case(
        attrs.evolve(prepared, views=open_views(path, images=6, size=(SIDE, SIDE))), tmp_path / "one"
    )
    reused = {trial.arm for trial in again.trials if trial.reused}
    assert {"full-hard", "syn-hard"} == reused


def test_mixed_views_need_the_batch_size_that_they_were_mixed_in(tmp_path):
    said = refused(replaying_case, tmp_path, "paste", "recipe.batch_size=5")
    assert "recipe.batch_size: 5" in said
    assert "in batches of 4" in said
    replaying_case(tmp_path, "no", "recipe.batch_size=5")
    # One batch of all six is the same, whatever larger size it was called.
    replaying_case(tmp_path, "paste", "recipe.batch_size=128", batch_size=6)


def test_a_loss_of_logits_is_refused_stored_probabilities(tmp_path):
    stored = draw_views("no", 0, count=6, size=(SIDE, SIDE))
    stored = attrs.evolve(stored, soft=stored.soft.softmax(dim=1))
    path = tmp_path / "views.safetensors"
    stored_views.save([stored], about("no", 1, count=6, soft_kind="probabilities"), path)
    said = refused(
        prepared_case,
        tmp_path,
        recipe={**RECIPE, "labels": "stored-views", "loss": "mse_gt", "augmentation": []},
        distilled={"path": "distilled.safetensors", "views": "views.safetensors"},
        teachers=[dict(CONFIG["student"])],
        scores=["ior"],
    )
    assert "mse_gt needs logits" in said


# -- FKD folders -------------------------------------------------------------------------------

SET, FKD_SIDE, FKD_EPOCHS, FKD_BATCH = 24, 16, 3, 10


def distilled_set(path: Path, seed: int = 0) -> DistilledSet:
    """Write a distilled set of 24 8-bit pictures, ordered by class as folders of pictures are."""
    draws = torch.Generator().manual_seed(seed)
    made = DistilledSet(
        images=torch.randint(0, 256, (SET, 3, FKD_SIDE, FKD_SIDE), generator=draws).float() / 255,
        labels=torch.arange(SET) // (SET // CLASSES),
        space=ImageSpace(kind="unit"),
        num_classes=CLASSES,
    )
    distilled.save(made, path)
    return made


def sampled_by(draws_per_epoch: int) -> list[torch.Tensor]:
    """Return the images of each epoch by the Mersenne Twister and Fisher and Yates, without torch."""
    twister = np.random.RandomState(42)

    def permutation() -> list[int]:
        order = list(range(SET))
        for place in range(SET - 1):
            other = place + int(twister.randint(0, 2**32, dtype=np.uint32)) % (SET - place)
            order[place], order[other] = order[other], order[place]
        return order

    epochs = [[permutation() for _ in range(draws_per_epoch)] for _ in range(FKD_EPOCHS)]
    return [torch.tensor(drawn[0]) for drawn in epochs]


def original_configs(made: DistilledSet, orders, mix: str | None, half: bool) -> list[list[list]]:
    """Make the batches of every epoch as the originals' fkd_save mode does, with a teacher that sees well."""
    torch.manual_seed(1)
    numbers = np.random.RandomState(1)
    epochs = []
    for order in orders:
        batches = []
        for image in order.split(FKD_BATCH):
            coords = torch.tensor([draw_box(FKD_SIDE, FKD_SIDE) for _ in image]) / FKD_SIDE
            flips = torch.tensor([bool(torch.rand(1) < 0.5) for _ in image])
            index, lam, box = None, None, None
            if mix is not None:
                index, lam = torch.randperm(len(image)), numbers.beta(0.8, 0.8)
            if mix == "cutmix":
                cut = int(FKD_SIDE * np.sqrt(1 - lam))
                cx, cy = numbers.randint(FKD_SIDE), numbers.randint(FKD_SIDE)
                edges = (cx - cut // 2, cy - cut // 2, cx + cut // 2, cy + cut // 2)
                box = [np.clip(edge, 0, FKD_SIDE) for edge in edges]
                assert isinstance(box[0], np.int64)
            soft = torch.randn(len(image), CLASSES) + 12 * F.one_hot(made.labels[image], CLASSES)
            batches.append([coords, flips, index, lam, box, soft.half() if half else soft])
        epochs.append(batches)
    return epochs


def write_fkd(folder: Path, epochs: list[list[list]]) -> Path:
    for epoch, batches in enumerate(epochs):
        (folder / f"epoch_{epoch}").mkdir(parents=True)
        for number, batch in enumerate(batches):
            torch.save(batch, folder / f"epoch_{epoch}" / f"batch_{number}.tar")
    return folder


@pytest.fixture
def made(tmp_path) -> DistilledSet:
    return distilled_set(tmp_path / "set.safetensors")


def run_import(tmp_path: Path, folder: Path, *options: str) -> str:
    arguments = [str(folder), str(tmp_path / "out.safetensors"), *options]
    done = CliRunner().invoke(command, arguments)
    if done.exception:
        raise done.exception
    return done.output


def imported(tmp_path: Path, folder: Path, *options: str) -> tuple[stored_views.StoredViews, str]:
    said = run_import(tmp_path, folder, "--images", str(tmp_path / "set.safetensors"), *options)
    path = tmp_path / "out.safetensors"
    return stored_views.load(path, images=SET, num_classes=CLASSES, size=(FKD_SIDE, FKD_SIDE)), said


@pytest.mark.parametrize(
    ("mix", "half"), [("cutmix", True), ("cutmix", False), ("mixup", True), (None, True)]
)
def test_an_fkd_folder_is_replayed_as_by_the_original(tmp_path, made, mix, half):
    # The original's own sampler: one generator for all epochs.
    sampler = RandomSampler(range(SET), generator=torch.Generator().manual_seed(42))
    loader = BatchSampler(sampler, FKD_BATCH, drop_last=False)
    orders = [torch.tensor([index for batch in loader for index in batch]) for _ in range(FKD_EPOCHS)]
    configs = original_configs(made, orders, mix, half)

    views, said = imported(tmp_path, write_fkd(tmp_path / "fkd", configs))

    assert "3 epochs of 24, batches of 10" in said
    assert "order of torch 1.12 and later, 100.0% of the highest labels" in said
    assert ("F16" if half else "F32", "logits") == (views.soft_dtype, views.soft_kind)
    data = image_set(made.images, made.labels, views)
    training = training_of(tmp_path, FKD_BATCH)
    pictures = [TF.to_pil_image((image * 255).round().byte()) for image in made.images]
    size = (FKD_SIDE, FKD_SIDE)
    for epoch in range(FKD_EPOCHS):
        shown = list(replayed(data, training, epoch))
        assert len(configs[epoch]) == len(shown)
        for config, image, view in zip(configs[epoch], orders[epoch].split(FKD_BATCH), shown, strict=True):
            batch, hard, soft = original_batch(list(made.images), made.labels, config, image, size)
            torch.testing.assert_close(view.images, batch, atol=1e-5, rtol=0)
            assert torch.equal(hard, view.hard)
            assert torch.equal(soft, view.soft)
            # PIL rounds to 256 levels twice, once along each axis.
            rounded, _, _ = original_batch(pictures, made.labels, config, image, size)
            torch.testing.assert_close(view.images, rounded, atol=1.01 / 255, rtol=0)


@pytest.mark.parametrize(("draws", "words"), [(2, "torch 1.12 and later"), (1, "torch before 1.12")])
def test_the_order_of_older_torch_is_told_from_that_of_newer(tmp_path, made, draws, words):
    orders = sampled_by(draws)
    folder = write_fkd(tmp_path / "fkd", original_configs(made, orders, "cutmix", True))
    views, said = imported(tmp_path, folder)
    assert words in said
    assert [order.tolist() for order in orders] == [views.epoch(e).image.tolist() for e in range(FKD_EPOCHS)]


def test_an_order_that_the_files_hold_is_taken_from_them(tmp_path, made):
    torch.manual_seed(5)
    orders = [torch.randperm(SET) for _ in range(FKD_EPOCHS)]
    configs = original_configs(made, orders, "cutmix", True)
    for batches, order in zip(configs, orders, strict=True):
        for batch, image in zip(batches, order.split(FKD_BATCH), strict=True):
            # G-VBSM adds the images' positions; EDC also patch orders, which its code does not use.
            batch += [image, torch.zeros(len(image), 2, 2, dtype=torch.int32)]
    folder = write_fkd(tmp_path / "fkd", configs)
    views, said = imported(tmp_path, folder)
    assert "order as in the files" in said
    assert [order.tolist() for order in orders] == [views.epoch(e).image.tolist() for e in range(FKD_EPOCHS)]
    said = refused(imported, tmp_path, folder, "--order-seed", "42", "--force")
    assert "--order-seed: the files say themselves" in said


def test_another_seed_of_the_order_is_noticed(tmp_path, made):
    sampler = RandomSampler(range(SET), generator=torch.Generator().manual_seed(7))
    orders = [torch.tensor(list(sampler)) for _ in range(FKD_EPOCHS)]
    folder = write_fkd(tmp_path / "fkd", original_configs(made, orders, "cutmix", True))
    said = refused(imported, tmp_path, folder)
    assert "no more than by chance" in said
    assert "not that of --order-seed 42" in said
    assert not (tmp_path / "out.safetensors").exists()
    views, _ = imported(tmp_path, folder, "--order-seed", "7")
    assert orders[2].tolist() == views.epoch(2).image.tolist()


def test_probabilities_are_told_from_logits(tmp_path, made):
    configs = original_configs(made, sampled_by(2), None, half=False)
    for batches in configs:
        for batch in batches:
            batch[5] = batch[5].softmax(dim=1)
    folder = write_fkd(tmp_path / "fkd", configs)
    assert "probabilities" == imported(tmp_path, folder)[0].soft_kind
    assert "logits" == imported(tmp_path, folder, "--soft-kind", "logits", "--force")[0].soft_kind


class Hostile:
    def __reduce__(self):
        return os.system, ("echo hostile",)


def put(place, value):
    """Return a change of what the second batch of the second epoch holds."""

    def change(folder: Path) -> None:
        path = folder / "epoch_1" / "batch_1.tar"
        batch = torch.load(path, weights_only=False)
        batch[place] = value(batch[place]) if callable(value) else value
        torch.save(batch, path)

    return change


def drop(name: str):
    return lambda folder: (folder / name).unlink()


FKD_FAULTS = [
    ("epoch_1: batch_1.tar: missing; not all of the labels are there", drop("epoch_1/batch_1.tar")),
    ("epoch_1: 2 batches, but epoch_0 has 3", drop("epoch_1/batch_2.tar")),
    ("fkd: epoch_1: missing", lambda folder: (folder / "epoch_1").rename(folder / "epoch_9")),
    ("batch_1.tar: cut off", lambda folder: os.truncate(folder / "epoch_1/batch_1.tar", 900)),
    ("batch_1.tar: empty file", lambda folder: os.truncate(folder / "epoch_1/batch_1.tar", 0)),
    ("not a batch of FKD labels", lambda folder: torch.save([1, 2], folder / "epoch_1/batch_1.tar")),
    ("batch_1.tar: holds code (posix.system), refused", put(4, Hostile())),
    ("crops: torch.float32 [10, 3], but must be torch.float32 [10, 4]", put(0, lambda t: t[:, :3])),
    ("flips: must be a tensor [B]", put(1, None)),
    ("flips: torch.int64 [10], but must be torch.bool [10]", put(1, lambda t: t.long())),
    ("partners: must be from 0 to 9", put(2, lambda t: t + 1)),
    ("other labels, or mixed in another way", put(2, None)),
    ("box: must be four whole numbers of pixels", put(4, [0, 1, 2])),
    (
        "labels: torch.float16 [10, 1000000000], but must be a float type",
        put(5, lambda t: t[:1, :1].expand(10, 10**9)),
    ),
    ("epoch 1: soft: NaN or infinite", put(5, lambda t: t * float("inf"))),
    ("other labels, or mixed", put(5, lambda t: t.float())),
    ("epoch_1: box: not whole pixels of 16x16", put(0, lambda t: t * 0.9)),
    ("epoch_1: paste: must be boxes in 16x16 pixels", put(4, [0, 0, 17, 16])),
]


@pytest.mark.parametrize(("message", "change"), FKD_FAULTS)
def test_every_fault_of_an_fkd_folder_is_one_line(tmp_path, made, message, change, capfd):
    folder = write_fkd(tmp_path / "fkd", original_configs(made, sampled_by(2), "cutmix", True))
    change(folder)
    said = refused(imported, tmp_path, folder)
    assert message in said
    assert "hostile" not in capfd.readouterr().out
    assert {"set.safetensors", "fkd"} == {item.name for item in tmp_path.iterdir()}


def test_what_does_not_go_with_fkd_labels_is_refused(tmp_path, made):
    folder = write_fkd(tmp_path / "fkd", original_configs(made, sampled_by(2), None, True))
    assert "give with --images the distilled set" in refused(run_import, tmp_path, folder)
    said = refused(imported, tmp_path, folder, "--space", "unit")
    assert "--space does not apply to FKD labels" in said
    said = refused(imported, tmp_path, tmp_path / "set.safetensors")
    assert "no FKD labels (epoch_0/batch_0.tar)" in said
    fewer = attrs.evolve(made, images=made.images[:12], labels=made.labels[:12])
    distilled.save(fewer, tmp_path / "set.safetensors")
    assert "24 views, but" in refused(imported, tmp_path, folder)
    distilled.save(attrs.evolve(made, num_classes=4), tmp_path / "set.safetensors")
    assert "3 values per label" in refused(imported, tmp_path, folder)


def test_views_of_images_in_another_order_are_noticed(tmp_path, made):
    folder = write_fkd(tmp_path / "fkd", original_configs(made, sampled_by(2), "cutmix", True))
    turned = made.labels.roll(5)
    distilled.save(attrs.evolve(made, labels=turned), tmp_path / "set.safetensors")
    with pytest.raises(DataError, match="its images are in another order"):
        imported(tmp_path, folder)
