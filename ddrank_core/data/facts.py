"""What is known of a data set without reading it."""

from __future__ import annotations

from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class DatasetFacts:
    """What a data set's optional method `facts()` returns, for `ddrank data list` and `ddrank data info`.

    It is the published whole: what lies on a disk may be less. A field that is not known is left out.
    """

    source: str
    """Who made it, and where it is had from."""
    licence: str
    """What its makers allow, in a few words."""
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    """In the order of the labels."""
    class_words: tuple[str, ...] = ()
    """What the names mean, where they are identifiers."""
    class_order: str = ""
    """How classes are numbered."""
    train_images: int | None = None
    test_images: int | None = None
    image_shape: tuple[int, int, int] | None = None
    """C x H x W, as it is loaded."""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    statistics: str = ""
    """Where mean and std are from."""
    check: str = ""
    """What the files are held to before they are used."""
    found: Path | None = None
    """Where the files are, by their names alone; None if they are not there."""
