"""What a run says about itself beside its numbers: protocol, data, and what a reader must know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddrank_core.config import RunConfig
from ddrank_core.engine.plan import Plan
from ddrank_core.engine.prepared import Prepared, real_digest
from ddrank_core.provenance import components
from ddrank_core.results import ArmResult, TrialResult


def protocol_record(prepared: Prepared) -> dict[str, Any]:
    """Return the protocol's name, version and what it decided."""
    plan, protocol = prepared.plan, prepared.config.protocol
    return {
        "name": protocol.use,
        "version": protocol.component.version,
        "repeats": plan.repeats,
        "learning_rates": list(plan.candidates),
        **_own_rates(plan),
        "validation_images": len(prepared.split.validation),
        "selected_on_test_set": selects_on_test_set(prepared),
    }


def data_record(prepared: Prepared, train_digest: str) -> dict[str, Any]:
    """Return the sources, sizes and digests of the real data and the distilled set.

    Reads the test labels, so it belongs after the last choice.
    """
    real, distilled = prepared.real, prepared.distilled
    return {
        "dataset": {
            "name": prepared.config.dataset.use,
            "source": real.source,
            "train_sha256": train_digest,
            "test_sha256": real_digest(real, "test"),
            "train_images": len(real.train_labels),
            "test_images": len(real.test_labels),
            "classes": list(real.class_names),
            "image_shape": list(real.image_shape),
            "mean": list(real.mean),
            "std": list(real.std),
        },
        "distilled": {
            "path": str(prepared.config.distilled.path),
            "sha256": prepared.distilled_digest,
            "images": len(distilled.labels),
            "images_per_class": list(prepared.counts),
            "space": distilled.space.kind,
            "soft_labels": distilled.soft_kind if distilled.soft_labels is not None else None,
            "learning_rate": distilled.learning_rate,
            "info": dict(distilled.info),
        },
    }


def selects_on_test_set(prepared: Prepared) -> bool:
    """Return whether the protocol looks at the test set while it trains."""
    return bool(prepared.config.protocol.component.test_epochs(1))


def notes(
    prepared: Prepared, arms: Mapping[str, ArmResult], trials: Sequence[TrialResult]
) -> tuple[str, ...]:
    """Return what a reader must know to judge the scores, one sentence each."""
    found = list(_file_notes(prepared.config))
    if prepared.config.full_data.accuracy is not None:
        found.append("The full-data accuracy is given, so no interval holds its uncertainty.")
    found += [check.note for check in prepared.teacher_checks if check is not None and check.note]
    if selects_on_test_set(prepared):
        found.append("Learning rates and epochs were selected on the test set: these numbers are optimistic.")
    if at_end := _at_end_of_grid(prepared.plan, arms):
        found.append(f"The chosen learning rate is at an end of the grid for {', '.join(at_end)}.")
    if diverged := sum(trial.diverged for trial in trials):
        found.append(f"{diverged} of {len(trials)} trials diverged; none of them is in a mean.")
    if failed := [trial for trial in trials if trial.error is not None]:
        found.append(
            f"{len(failed)} of {len(trials)} trials failed, the first so: {str(failed[0].error).rstrip('.')}."
        )
    if reused := sum(trial.reused for trial in trials):
        found.append(f"{reused} of {len(trials)} trials were read back from the store of finished trials.")
    return tuple(found)


def _file_notes(config: RunConfig) -> Iterator[str]:
    """Yield one sentence for each component that is from a one-off file."""
    from_files = {chosen.use: chosen for _, chosen in components(config) if chosen.entry.from_file}
    for name, chosen in from_files.items():
        yield (
            f"{name} is from the {chosen.entry.distribution}, which others do not have: "
            "this record cannot be reproduced by others."
        )


def _own_rates(plan: Plan) -> dict[str, Any]:
    """Return what the arm full-hard tries, where it has rates of its own."""
    own = next(iter(plan.with_own_rates), None)
    return {} if own is None else {"full_data_learning_rates": list(own.candidates)}


def _at_end_of_grid(plan: Plan, arms: Mapping[str, ArmResult]) -> list[str]:
    """Return the arms that might have done better with a rate that was not tried."""
    tried = {arm.name: arm.candidates for arm in plan.trained if len(arm.candidates) > 1}
    return [
        name
        for name, rates in tried.items()
        if name in arms and {rates[0], rates[-1]} & set(arms[name].learning_rates)
    ]
