"""What a submission says, and what is known of it when it is ranked: small frozen types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from ddrank_core.config import ScoreName

Track = Literal["own", "fixed"]
"""`own`: the method's own recipe. `fixed`: one recipe for all methods on a data set."""

TRACKS: tuple[Track, ...] = ("own", "fixed")

Level = Literal["error", "warning", "info"]
"""Of a finding: refuses the submission, is shown beside the row, or is only stated."""


Saw = Literal["train images", "train labels", "validation", "test images", "pretrained network"]


# -- what a contributor says -------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Claim:
    """An accuracy that somebody has published for this distilled set."""

    accuracy: float
    """A fraction in [0, 1]."""
    source: str
    """Where it stands: the paper and its table."""
    student: str | None = None


@attrs.frozen(kw_only=True)
class Cost:
    """What the distillation took."""

    gpu_hours: float
    device: str


@attrs.frozen(kw_only=True)
class DistilledFile:
    """The distilled set: a file in the submission's folder, or a pinned one elsewhere."""

    path: Path | None = None
    """Inside the folder."""
    url: str | None = None
    sha256: str
    bytes: int
    made_with: str | None = None
    """How the file is made from what lies at the address, in words; None where it lies there itself."""


@attrs.frozen(kw_only=True)
class Submission:
    """`submission.yaml`, read and checked for itself."""

    folder: Path
    slug: str
    """`<method folder>/<data set>-ipc<n>`; unique on a board."""
    method: str
    authors: tuple[str, ...]
    paper: str | None = None
    code: str | None = None
    licence: str
    """SPDX identifier of the distilled set, or the words of its source."""
    dataset: str
    ipc: int
    saw: tuple[Saw, ...]
    """What the method saw of the real data, and whether it used a network that was trained elsewhere."""
    teacher: str | None = None
    """Which teacher its soft labels are from, in words; None for hard labels."""
    cost: Cost | None = None
    claimed: tuple[Claim, ...] = ()
    distilled: DistilledFile
    recipe: Path
    """A run config inside the folder."""


# -- what was found ----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that `ddrank submission check` has found."""

    level: Level
    check: str
    """Which check: `schema`, `digest`, `loading`, `shape`, `labels`, `class order`, `real images`, ..."""
    text: str
    """One line: what, where, what to do."""
    picture: str | None = None
    """File name of a picture that shows it, beside the report."""


# -- what is ranked ----------------------------------------------------------------------------

Axis = Literal["augmentation", "labels", "student"]
"""The one thing in which a variant's evaluation differs."""


@attrs.frozen(kw_only=True)
class Variant:
    """The same distilled set, evaluated as its method is but for one thing."""

    axis: Axis
    name: str
    """Of its folder: `method-<axis>-<name>`."""


@attrs.frozen(kw_only=True)
class Measured:
    """A distilled set, or a control, as one run measured it. Accuracies are fractions, by repeat."""

    arms: Mapping[str, tuple[float | None, ...]]
    """Arm -> test accuracy of each repeat; None for a trial that diverged."""
    learning_rates: Mapping[str, tuple[float | None, ...]]
    full_given: bool
    """Whether full-hard's accuracy is a published one, the same in every repeat."""
    scores: Mapping[ScoreName, tuple[float | None, float | None]]
    """Score -> mean and 95 % half-width, as the record states them."""
    device: str
    protocol: str
    """With its version, and what else scores hang on: a quoted full-data accuracy, whitening, precision."""
    ddrank: str
    """Version."""
    seeds: tuple[int, ...] = ()
    """The seed of each repeat: repeats of two runs with the same seed are paired. Empty where unknown."""
    data: str = ""
    """What stands for the real images and labels: rows of one table have the same."""
    full_recipe: str = ""
    """What stands for the training on the full data, likewise; empty where its accuracy is quoted."""


@attrs.frozen(kw_only=True)
class Entry:
    """A row of the board: one submission on one track."""

    submission: Submission
    track: Track
    student: str
    labels: str
    """`hard`, `soft`, `teacher` or `stored-views`: the label mapping of the recipe."""
    measured: Measured
    controls: Mapping[str, Measured]
    """`noise`, `random`, `herding`, `k-means` -> the same recipe on images of that kind."""
    image_bytes: int
    label_bytes: int
    teacher_bytes: int
    findings: tuple[Finding, ...]
    command: str
    """The one command that runs it again."""
    augmentation: str = ""
    """The names of the recipe's augmentations, `none` where it has none."""
    variant: Variant | None = None
    """None for the row itself. Other augmentations and label mappings stand in tables of their own."""
