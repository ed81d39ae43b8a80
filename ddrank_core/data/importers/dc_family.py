"""The `.pt` of the DC family: DC, DSA, DM, CAFE, IDM, CAM and others that kept its format.

A dict: `data` is a list with [images, labels] of each experiment, `accs_all_exps` has the accuracies
that the method's own evaluation measured, by network, of all experiments together.

Source: VICO-UoE/DatasetCondensation, main.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ddrank_core.data.importers.assemble import Parts, assemble
from ddrank_core.data.importers.options import ImportOptions
from ddrank_core.errors import DataError
from ddrank_core.types import DistilledSet

MAX_ACCURACIES = 10_000


def read(content: dict[Any, Any], path: Path, options: ImportOptions) -> DistilledSet:
    """Return one experiment, the first unless an option says another.

    Raises:
        DataError: naming the file and the field.
    """
    options.refuse(("labels", "soft_labels", "lr"), str(path))
    experiments = content.get("data")
    if not isinstance(experiments, list) or not experiments:
        keys = ", ".join(str(key)[:30] for key in list(content)[:6]) or "nothing"
        raise DataError(
            f"{path}: data: missing; the file holds {keys}, not the DC family's list of experiments"
        )
    index = options.experiment or 0
    if index >= len(experiments):
        raise DataError(f"{path}: --experiment {index}: the file holds {len(experiments)}, numbered from 0")
    pair = experiments[index]
    where = f"{path}: data[{index}]"
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise DataError(f"{where}: must be a pair of images and labels")
    info: dict[str, Any] = {"recorded_accuracies": _accuracies(content.get("accs_all_exps"))}
    if len(experiments) > 1:
        info["experiment"] = {"index": index, "of": len(experiments)}
    parts = Parts(images=pair[0], labels=pair[1], space="normalised", files=(path,), info=info)
    return assemble(parts, options, path, where)


def _accuracies(recorded: Any) -> dict[str, list[float]]:
    """Return the accuracies by network, as fractions; what is none is left out."""
    if not isinstance(recorded, dict):
        return {}
    found = {}
    for network, values in recorded.items():
        if isinstance(network, str) and isinstance(values, list) and len(values) <= MAX_ACCURACIES:
            numbers = [float(value) for value in values if isinstance(value, (int, float))]
            if numbers and all(math.isfinite(number) for number in numbers):
                found[network[:80]] = numbers
    return found
