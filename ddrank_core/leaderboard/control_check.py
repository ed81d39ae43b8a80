"""Whether a track's controls are controls: made here again, they must be the sets that were trained on."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs

from ddrank_core import __version__
from ddrank_core.data import distilled as distilled_file
from ddrank_core.engine.images import normaliser
from ddrank_core.engine.prepared import Prepared, split_training_set
from ddrank_core.errors import DataError
from ddrank_core.leaderboard.controls import CONTROLS, SEED, control_file, is_intact, make_control
from ddrank_core.leaderboard.findings import Findings, listed
from ddrank_core.leaderboard.measured import take
from ddrank_core.leaderboard.planned import Planned
from ddrank_core.registry import Registry
from ddrank_core.types import DistilledSet, RealData

CHECK = "controls"
MAX_VALUES = 1 << 28
"""Of real pixel values times images per class: k-means takes half a minute for so many, on one slow core."""
_DRAWN = ("noise", "random")
"""Controls that take no time."""
_MAKERS = ("ddrank", "torch", "numpy", "scikit-learn")
"""What a control's bits may hang on."""


@attrs.frozen(eq=False, kw_only=True)
class Beside:
    """What controls are made again from."""

    planned: Planned
    distilled: DistilledSet | None
    """The submitted set; None where it cannot be read."""
    real: RealData | None
    ipc: int
    registry: Registry


def check_controls(
    records: Mapping[str, Mapping[str, Any]], beside: Beside, folder: Path, findings: Findings
) -> None:
    """Check the controls among a track's records, which are by contestant; `folder` is the track's."""
    controls = [name for name in CONTROLS if name in records]
    digests: dict[str, str] = {}
    for name in [*controls, *(["method"] if "method" in records else [])]:
        with findings.refusing(CHECK):
            digests[name] = take(records[name], "data.distilled.sha256", str, f"{folder / name}")
    genuine, left_out = set(), []
    for name in (name for name in controls if name in digests):
        with findings.refusing(CHECK):
            _check_told(records[name], name, f"{folder / name}")
            made = _made_again(name, records[name], beside)
            if made is None:
                left_out.append(name)
            elif made == digests[name]:
                genuine.add(name)
            else:
                _note_other(records[name], f"{folder / name}", findings)
    for one, other in combinations(digests, 2):
        # A method may choose just the images that a control does.
        if digests[one] == digests[other] and not (other == "method" and one in genuine):
            findings.note(
                "error",
                CHECK,
                f"{folder / one}: data.distilled.sha256: is that of {other}; evaluate it again",
            )
    if left_out:
        findings.note("info", CHECK, f"{folder}: not made again: {listed(left_out)}; {_why(beside)}")


def _check_told(record: Mapping[str, Any], name: str, where: str) -> None:
    """Check what a control's set says of itself, where the record has kept it."""
    info = take(record, "data.distilled.info", dict, where)
    for field, expected in (("method", CONTROLS[name]["use"]), ("seed", SEED)):
        if info and info.get(field) != expected:
            raise DataError(
                f"{where}: data.distilled.info.{field}: {str(info.get(field))[:40]}, but the control's is "
                f"{expected}; evaluate it again"
            )


# -- made again --------------------------------------------------------------------------------


def _made_again(name: str, record: Mapping[str, Any], beside: Beside) -> str | None:
    """Return the SHA-256 of a control that is made here, None where it is left out."""
    if beside.real is None or beside.distilled is None or _needs_teachers(beside):
        return None
    prepared = _prepared(beside.real, beside.distilled, beside.planned)
    file = control_file(name, prepared, beside.ipc, (), beside.registry)
    if not (_is_quick(name, beside.real, beside.ipc) or is_intact(file)):
        return None
    made = distilled_file.load(make_control(name, prepared, beside.ipc, (), beside.registry))
    # In whose words the real data are described is no part of the images.
    info = {**made.info, "source": take(record, "data.distilled", dict, name).get("info", {}).get("source")}
    with tempfile.TemporaryDirectory(prefix="ddrank-control-") as folder:
        path = Path(folder) / file.name
        distilled_file.save(attrs.evolve(made, info=info), path)
        return distilled_file.digest(path)


def _needs_teachers(beside: Beside) -> bool:
    return bool(getattr(beside.planned.config.recipe.labels.component, "needs_stored_soft", False))


def _is_quick(name: str, real: RealData, ipc: int) -> bool:
    return name in _DRAWN or real.train_images.numel() * ipc <= MAX_VALUES


def _why(beside: Beside) -> str:
    if beside.real is None:
        return "the real data are not here"
    return "its labels are a teacher's" if _needs_teachers(beside) else "it would take minutes"


def _prepared(real: RealData, distilled: DistilledSet, planned: Planned) -> Prepared:
    """Return as much of a run as a control with hard labels is made beside."""
    import torch

    device = torch.device("cpu")
    return Prepared(
        config=planned.config,
        where=planned.config.name,
        plan=planned.plan,
        teacher_training=None,
        real=real,
        distilled=distilled,
        distilled_digest="",
        counts=(),
        split=split_training_set(real, 0.0, 0),
        device=device,
        space=normaliser(real.mean, real.std, device),
    )


def _note_other(record: Mapping[str, Any], where: str, findings: Findings) -> None:
    """Refuse a control that is not the one made here, but where other libraries may have made it."""
    text = f"{where}: data.distilled.sha256: is not that of the control that is made here"
    if (other := _other_maker(take(record, "versions", dict, where))) is not None:
        findings.note("warning", CHECK, f"{text}; it was made with {other}")
    else:
        findings.note("error", CHECK, f"{text}; evaluate it again")


def _other_maker(then: Mapping[str, Any]) -> str | None:
    """Return what is not the same here as where a record was made, None if all is."""
    for name in _MAKERS:
        now = __version__ if name == "ddrank" else metadata.version(name)
        if then.get(name) != now:
            return f"{name} {str(then.get(name))[:40]}, here {now}"
    machine = platform.machine()
    return None if machine in str(then.get("platform")) else f"another kind of processor than {machine}"
