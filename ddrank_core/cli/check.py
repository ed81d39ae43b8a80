"""`ddrank check`: everything that `ddrank run` would refuse, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ddrank_core.cli.options import device_option, overrides_option


@click.command("check")
@click.argument("config", type=click.Path(path_type=Path))
@overrides_option
@device_option
def command(config: Path, overrides: tuple[str, ...], device: str) -> None:
    """Validate CONFIG, its data, networks and checkpoints; say what a run would do, and train nothing."""
    from ddrank_core.cli.problems import warn
    from ddrank_core.config import load_run
    from ddrank_core.registry import default_registry

    registry = default_registry()
    warn(registry.problems)
    settings = load_run(config, registry, overrides)
    # From here on torch is needed, which costs seconds to import.
    from ddrank_core.engine.device import describe, resolve, threads_for
    from ddrank_core.engine.prepare import prepare
    from ddrank_core.engine.rehearse import rehearse_training

    place, real = resolve(device), None
    lines = []
    for index, single in enumerate(settings.each_student()):
        named = f"{config}: students[{index}]" if settings.students else str(config)
        prepared = prepare(single, named, registry, place, real)
        rehearse_training(prepared)
        real, plan = prepared.real, prepared.plan
        arms = ", ".join(f"{arm.name} (= {arm.same_as})" if arm.same_as else arm.name for arm in plan.arms)
        if settings.students:
            lines.append(f"  student: {single.student.use}")
        lines += [
            f"  arms: {arms}",
            f"  learning rates: {_rates(plan.candidates)}",
            *(
                f"  of {arm.name}: {_rates(arm.candidates)}"
                for arm in plan.trained
                if arm.candidates != plan.candidates
            ),
            f"  trials: {plan.count()}, {plan.repeats} repeats, protocol {settings.protocol.use}",
        ]
        with threads_for(place, prepared.step_activations):
            lines.append(f"  device: {describe(place)}")
    click.echo("\n".join([f"{config}: good", *lines]))


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)
