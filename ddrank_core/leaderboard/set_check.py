"""What can be found wrong with a submission's distilled set itself, and beside the real data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ddrank_core.config import RunConfig
from ddrank_core.data import distilled as distilled_file
from ddrank_core.errors import DataError
from ddrank_core.leaderboard.audit import (
    LIKE_TEST_IMAGES,
    PARTS,
    SURELY_LIKE_TEST_IMAGES,
    Audit,
    Pair,
    Part,
    audit,
)
from ddrank_core.leaderboard.audit_figure import pairs_png
from ddrank_core.leaderboard.class_order import class_order
from ddrank_core.leaderboard.findings import Findings, listed
from ddrank_core.leaderboard.types import Level, Submission
from ddrank_core.types import DistilledSet, RealData

if TYPE_CHECKING:
    from torch import Tensor

MAX_SET_BYTES = 16 << 30
"""Of pixels and labels, which are read into memory at once."""

Draw = Callable[[str, Callable[[Path], None]], str | None]
"""Takes a file name and what draws it; returns the name, or None where no pictures are wanted."""


@attrs.frozen(eq=False, kw_only=True)
class Loaded:
    """A distilled set that could be read."""

    path: Path
    distilled: DistilledSet
    sha256: str


# -- the file ----------------------------------------------------------------------------------


def check_file(submission: Submission, config: RunConfig, findings: Findings) -> Loaded | None:
    """Check digest and size, and read the set if it is the declared one."""
    path, declared = config.distilled.path, submission.distilled
    with findings.refusing("digest"):
        # First, for it costs nothing: a file of holes is long, and its digest takes as long as it says.
        size = path.stat().st_size
        if size != declared.bytes:
            raise DataError(
                f"{path}: distilled.bytes: has {size} bytes, but submission.yaml declares {declared.bytes}"
            )
        sha256 = distilled_file.digest(path)
        if sha256 != declared.sha256:
            raise DataError(
                f"{path}: distilled.sha256: is {sha256}, but submission.yaml declares {declared.sha256}"
            )
        with findings.refusing("loading"):
            distilled_file.header(path)
            if size > MAX_SET_BYTES:
                raise DataError(f"{path}: larger than {MAX_SET_BYTES >> 30} GiB, which is not read at once")
            return Loaded(path=path, distilled=distilled_file.load(path), sha256=sha256)
    return None


def check_described(
    loaded: Loaded, submission: Submission, config: RunConfig, real: RealData | None, findings: Findings
) -> bool:
    """Check space, shape, classes and IPC; return whether the set can be laid beside the real data."""
    distilled, where = loaded.distilled, str(loaded.path)
    fits = False
    if distilled.space.kind == "zca" and config.whitening is None:
        findings.note(
            "error",
            "image space",
            f"{submission.recipe}: whitening: missing; the images of {where} are ZCA-whitened, so give the "
            "eps of the whitening that the method trains with",
        )
    elif real is not None:
        with findings.refusing("shape"):
            distilled_file.check_against(distilled, real, None, where)
            fits = True
    given = config.distilled.ipc
    if given is not None and given != submission.ipc:
        findings.note(
            "error",
            "ipc",
            f"{submission.recipe}: distilled.ipc: {given}, but submission.yaml declares {submission.ipc}",
        )
    counts = distilled.labels.bincount(minlength=distilled.num_classes).tolist()
    wrong = [f"{count} of class {index}" for index, count in enumerate(counts) if count != submission.ipc]
    if wrong:
        findings.note(
            "error", "ipc", f"{where}: labels: IPC {submission.ipc} is declared, but it has {listed(wrong)}"
        )
    return fits


# -- labels and bytes --------------------------------------------------------------------------


def check_labels(loaded: Loaded, submission: Submission, config: RunConfig, findings: Findings) -> None:
    """Check that the labels are of the kind that the recipe trains towards, and say what is in them."""
    distilled, labels = loaded.distilled, config.recipe.labels
    needs = getattr(labels.component, "needs_stored_soft", False)
    soft = distilled.soft_labels
    if soft is None:
        if needs:
            findings.note(
                "error",
                "labels",
                f"{submission.recipe}: recipe.labels: {labels.use} needs stored soft labels, and "
                f"{loaded.path} has none; use the labels teacher or hard",
            )
        return
    needs_logits = needs and getattr(config.recipe.loss.component, "needs_logits", False)
    if needs_logits and distilled.soft_kind != "logits":
        findings.note(
            "error",
            "labels",
            f"{submission.recipe}: recipe.loss: {config.recipe.loss.use} needs logits, and {loaded.path} "
            "stores probabilities",
        )
    agreement = float((soft.argmax(dim=1) == distilled.labels).float().mean())
    findings.note(
        "info",
        "labels",
        f"soft labels: {distilled.soft_kind} of {soft.shape[1]} classes; the highest is the hard label of "
        f"{agreement:.1%} of the images",
    )
    if submission.teacher is None and needs:
        findings.note(
            "warning",
            "labels",
            f"{submission.folder}/submission.yaml: teacher: missing; say whose soft labels the set holds",
        )


def check_bytes(loaded: Loaded, config: RunConfig, findings: Findings) -> None:
    """Say how many bytes of labels stand beside how many of images."""
    distilled, views = loaded.distilled, config.distilled.views
    image_bytes = distilled.images.numel() * 4
    label_bytes = 0 if distilled.soft_labels is None else distilled.soft_labels.numel() * 4
    label_bytes += 0 if views is None else views.stat().st_size
    if not label_bytes:
        return
    text = (
        f"{_mib(label_bytes)} of soft labels beside {_mib(image_bytes)} of images, "
        f"{label_bytes / image_bytes:.2g} times as much"
    )
    findings.note("warning" if label_bytes > image_bytes else "info", "bytes", text)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.2f} MiB"


# -- images ------------------------------------------------------------------------------------


def check_class_order(loaded: Loaded, images_unit: Tensor, real: RealData, findings: Findings) -> None:
    """Check that the labels number the classes as the real data set does."""
    found = class_order(images_unit, loaded.distilled.labels, real)
    chance = 1 / real.num_classes
    if found.permuted:
        names = real.class_names
        moved = [f"{label} look like {names[found.looks_like[label]]}" for label in found.moved]
        findings.note(
            "error",
            "class order",
            f"{loaded.path}: labels: {len(moved)} of {len(names)} labels are permuted: images "
            f"of {listed(moved)}; number the classes as the data set does",
        )
        return
    agreement = f"linear classifiers confirm {found.agreement:.1%} of the labels (by chance {chance:.1%})"
    if found.confirmed:
        findings.note(
            "info", "class order", f"as a whole, the labels are in the data set's order: {agreement}"
        )
        return
    findings.note(
        "warning",
        "class order",
        f"{loaded.path}: labels: whether they are permuted cannot be told from these images: {agreement}",
    )


def check_images(images_unit: Tensor, real: RealData, draw: Draw, findings: Findings) -> None:
    """Find real images inside the set, near duplicates of them, and images that stand there twice."""
    found = audit(images_unit, real)
    kinds = (("real images", found.copies), ("near duplicates", found.near))
    for check, pairs in kinds:
        picture = None
        if pairs:
            title = f"{check.capitalize()}: distilled on the left, real on the right"
            paint = partial(pairs_png, pairs, images_unit, real, title)
            picture = draw(f"check-{check.replace(' ', '-')}.png", paint)
        for part in reversed(PARTS):
            if mine := [pair for pair in pairs if pair.part == part]:
                level, text = _worded(check, part, mine)
                findings.note(level, check, text, picture)
    if found.test_p_value < LIKE_TEST_IMAGES:
        findings.note(*_like_test_images(found))
    findings.note(*_compared(found, real))
    twice = len(images_unit) - len({image.numpy().tobytes() for image in images_unit})
    if twice:
        findings.note("warning", "duplicates", f"{twice} images repeat another image of the set, bit for bit")


def _like_test_images(found: Audit) -> tuple[Level, str, str]:
    """Return the finding that a set is like test images more often than by chance."""
    counts = found.alike_by_part
    sure = found.test_p_value < SURELY_LIKE_TEST_IMAGES
    return (
        "error" if sure else "warning",
        "real images",
        f"the set is most like {counts['test']} test and {counts['train']} training images; by chance at "
        f"most {found.by_chance:.0%} of them are test images (p = {found.test_p_value:.0e}): it may hold "
        "changed test images",
    )


def _compared(found: Audit, real: RealData) -> tuple[Level, str, str]:
    """Return the finding that says what was compared with what."""
    theirs = f"{len(real.train_images)} training and {len(real.test_images)} test images"
    said = f"{len(found.copies)} are real, {len(found.near)} much like one"
    if found.seed is None:
        return "info", "real images", f"all {len(found.pairs)} images compared with {theirs}: {said}"
    return (
        "warning",
        "real images",
        f"{len(found.pairs)} images compared with {len(real.test_images)} test images, but only "
        f"{len(found.wholly)} of them, drawn with seed {found.seed}, with {len(real.train_images)} training "
        f"images: {said}",
    )


def _worded(check: str, part: Part, pairs: list[Pair]) -> tuple[Level, str]:
    named = listed([f"{pair.index} ({part} {pair.real}, {pair.correlation:.2f})" for pair in pairs])
    name = "training" if part == "train" else "test"
    many = f"{len(pairs)} images are" if len(pairs) > 1 else "1 image is"
    if check == "near duplicates":
        # Methods that start from real training images leave such ones.
        return "info" if part == "train" else "warning", f"{many} much like {name} images: number {named}"
    text = f"{many} among the real {name} images: number {named}"
    return ("warning", text) if part == "train" else ("error", f"{text}; no set may hold one")
