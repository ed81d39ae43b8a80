"""ImageNet's classes, in the order that every pretrained network knows, and its statistics."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from ddrank_core import DataError

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
STATISTICS = "the usual ones of ImageNet, as torchvision's and the distillation papers' code have them"
LICENCE = "non-commercial research and education only, under ImageNet's terms of access"

NUM_CLASSES = 1000


@cache
def wnids() -> tuple[str, ...]:
    """Return the WordNet ids of the 1,000 classes: sorted, which is how classes are numbered.

    Source: the installed timm's list, read as a file, since importing timm takes seconds.

    Raises:
        DataError: if the installed timm has no such list.
    """
    found = tuple(_timm_file("imagenet_synsets.txt").split())
    if len(found) != NUM_CLASSES or found != tuple(sorted(set(found))):
        raise DataError("the installed timm's list of ImageNet classes is not the expected one; update timm")
    return found


@cache
def words() -> dict[str, str]:
    """Return WordNet id -> the words that it stands for.

    Raises:
        DataError: if the installed timm has no such list.
    """
    rows = csv.reader(_timm_file("imagenet_synset_to_lemma.txt").splitlines(), delimiter="\t")
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _timm_file(name: str) -> str:
    from importlib.util import find_spec

    spec = find_spec("timm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        try:
            return (Path(folder) / "data" / "_info" / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
    raise DataError(
        f"the installed timm has no data/_info/{name}, which names ImageNet's classes; update timm"
    )
