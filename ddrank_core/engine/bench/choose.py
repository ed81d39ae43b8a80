"""Chooses how a CPU runs the students of a long run, by trying the ways on a few steps."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs

from ddrank_core.asked import Compile
from ddrank_core.engine import device
from ddrank_core.engine.bench.laps import Laps
from ddrank_core.engine.execution import AS_IT_IS, Execution, Resident
from ddrank_core.engine.plan import Arm, Trial
from ddrank_core.engine.train import evaluation_batch
from ddrank_core.engine.trial import Trainer
from ddrank_core.errors import RunFailed, one_line
from ddrank_core.provenance import provenance
from ddrank_core.store import cache_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

LONG = 600.0
"""Seconds of a run from which another way may pay: to compile a ConvNet takes about a minute."""
_LONG_PER_LAYER = 40.0
"""The same for each layer of a larger network: to compile takes about a tenth of it."""
_WORTH = 1.05
"""How much faster another way must be than the plain one."""
_FORMAT = 1
"""Of what is kept; another number forgets all choices."""
_BUDGET, _GLANCE = 1.5, 0.05
"""Seconds for the steps of one way, and for a first look at how long the run will be."""
_SAME = 1e-3
"""How far float32 results of two ways may be apart, relative to their size."""
COMPILED = Execution(compiled=True, channels_last=True)


@attrs.frozen(kw_only=True)
class Choice:
    """How students are run, and how that was found."""

    execution: Execution
    milliseconds: tuple[tuple[str, float], ...] = ()
    """Of a step forward and backward, by way; empty where nothing was tried."""
    fault: str | None = None
    """Why a student cannot be compiled, in one line."""

    @property
    def note(self) -> str | None:
        """Return what a reader of the record should know, in one sentence."""
        return None if self.fault is None else f"Students were not compiled: {self.fault}."


def choose(trainer: Trainer, asked: Compile, work: float, processes: int) -> Choice:
    """Return how this process and its like should run students that are trained alone.

    `work` is what is left of the run, as `Trainer.work` counts it, for so many processes. A choice that was
    measured is kept in the cache folder and holds for the same student, shapes, machine and versions. Runs
    of less than ten minutes go on as they are. What is asked for with `on` is checked, and not timed.

    Raises:
        RunFailed: one line, if the student cannot be compiled and must.
    """
    if asked == "off" or trainer.device.type != "cpu":
        return Choice(execution=AS_IT_IS)
    steps = _Steps(trainer, max(trainer.plan.trained, key=trainer.arm_work))
    if asked == "on":
        return _checked(steps)
    try:
        plain = steps.milliseconds(AS_IT_IS, _GLANCE, least=1)
    except Exception:  # the student is a plugin's; its first trial says what is wrong, and whose it is
        return Choice(execution=AS_IT_IS)
    expected = work / trainer.step_work(steps.shape[0]) * plain / 1000 / processes
    if expected < max(LONG, _LONG_PER_LAYER * steps.layers):
        return Choice(execution=AS_IT_IS)
    kept = cache_folder() / "executions" / f"{_key(trainer, steps.shape)}.json"
    found = _read(kept)
    if found is None or (found.execution.compiled and not _has_compiler()):
        found = _measured(steps)
        # A fault may be mended by the next run.
        if found.fault is None:
            _write(kept, found)
    return found


def _checked(steps: _Steps) -> Choice:
    try:
        steps.compare(COMPILED)
    except Exception as error:  # compilers raise what they like, and the student is a plugin's
        raise RunFailed(f"--compile on: the student cannot be compiled: {_worded(error)}") from error
    return Choice(execution=COMPILED)


def _measured(steps: _Steps) -> Choice:
    """Try the other ways, and return the fastest of those that compute the same."""
    times, fault = {AS_IT_IS: steps.milliseconds(AS_IT_IS)}, None
    for way in (Execution(channels_last=True), Execution(compiled=True), COMPILED):
        try:
            if way.compiled and not _has_compiler():
                raise FileNotFoundError("no C++ compiler is installed")
            steps.compare(way)
            times[way] = steps.milliseconds(way)
        except Exception as error:  # compilers raise what they like, and the student is a plugin's
            fault = _worded(error) if way.compiled else fault
    best = min(times, key=lambda way: times[way])
    if times[best] * _WORTH > times[AS_IT_IS]:
        best = AS_IT_IS
    spent = tuple((str(way), round(milliseconds, 3)) for way, milliseconds in times.items())
    can = any(way.compiled for way in times)
    return Choice(execution=best, milliseconds=spent, fault=None if can else fault)


def _has_compiler() -> bool:
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return any(shutil.which(name) for name in names if name)


def _worded(error: Exception) -> str:
    # torch's own text goes on for pages.
    return one_line(error)[:200]


class _Steps:
    """Training steps of an arm's student at its batch size, forward and backward."""

    def __init__(self, trainer: Trainer, arm: Arm) -> None:
        import torch

        (self._trial, *_) = trainer.plan.first_trials(arm, arm.rungs[0], arm.candidates)
        self._trainer = trainer
        training, test = arm.training, trainer.material.test
        count = min(training.batch_size, trainer.images_of(arm), training.micro_batch or training.batch_size)
        self.shape = (count, *trainer.prepared.real.image_shape)
        source = torch.Generator().manual_seed(0)
        self._images = torch.randn(self.shape, generator=source)
        tested = min(len(test), evaluation_batch(test, trainer.device))
        self._tested = torch.randn((tested, *self.shape[1:]), generator=source)

    @property
    def layers(self) -> int:
        """Return how many layers the student has."""
        modules = self._trainer.fresh(self._trial).modules()
        return sum(not list(module.children()) for module in modules)

    def milliseconds(self, way: Execution, budget: float = _BUDGET, least: int = 5) -> float:
        """Return the median time of a step run this way."""
        network = self._network(way, self._trial)
        laps = Laps(self._trainer.device, budget, least=least, most=20)
        laps.start()
        while not laps.enough:
            self._step(network, way)
            laps.tick()
        laps.stop()
        return 1000 * sorted(laps.seconds)[len(laps.seconds) // 2]

    def compare(self, way: Execution) -> None:
        """Check that a way computes what the plain one does, for a trial that follows another.

        Raises:
            ValueError: if logits, gradients, buffers or answers differ by more than rounding.
        """
        other = attrs.evolve(self._trial, seed=self._trial.seed + 1)
        expected, found = (self._results(one, other) for one in (AS_IT_IS, way))
        apart = [
            float((one - two).norm() / two.norm().clamp_min(1e-12))
            for one, two in zip(found, expected, strict=True)
        ]
        if not all(distance <= _SAME for distance in apart):
            raise ValueError(f"{way}, it computes something else (relative difference {max(apart):.1g})")

    def _results(self, way: Execution, trial: Trial) -> list[Tensor]:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = self._network(way, trial)
            logits = self._step(network, way)
        gradients = [weight.grad.flatten() for weight in network.parameters() if weight.grad is not None]
        buffers = [buffer.detach().double().flatten() for buffer in network.buffers()]
        with torch.inference_mode():
            answers = network.eval()(way.laid_out(self._tested)).clone()
        return [logits, answers, torch.cat(gradients), *([torch.cat(buffers)] if buffers else [])]

    def _step(self, network: nn.Module, way: Execution) -> Tensor:
        import torch

        network.zero_grad(set_to_none=True)
        logits: Tensor = network(way.laid_out(self._images))
        torch.autograd.backward(logits.square().mean())
        return logits.detach().clone()

    def _network(self, way: Execution, trial: Trial) -> nn.Module:
        """Return a trial's network; a compiled one has trained another trial before."""
        fresh = way.ready(self._trainer.fresh(trial)).train()
        if not way.compiled:
            return fresh
        first = way.ready(self._trainer.fresh(self._trial)).train()
        resident = Resident(first)
        self._step(first, way)
        return resident.become(fresh)


# -- what was measured before ------------------------------------------------------------------


def _key(trainer: Trainer, shape: Sequence[int]) -> str:
    import torch

    content = [
        _FORMAT,
        provenance(trainer.prepared.config.student),
        list(shape),
        trainer.prepared.real.num_classes,
        device.kind(trainer.device),
        _processor(),
        torch.__version__,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _processor() -> str:
    """Return the processor's name, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("model name")), "")


def _read(file: Path) -> Choice | None:
    """Return a choice that was made before; None where there is none, or it cannot be read."""
    try:
        kept = json.loads(file.read_text())
        return Choice(
            execution=Execution(compiled=bool(kept["compiled"]), channels_last=bool(kept["channels_last"])),
            milliseconds=tuple((str(way), float(time)) for way, time in kept["milliseconds"]),
            fault=cast("str | None", kept["fault"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(file: Path, choice: Choice) -> None:
    content = {**attrs.asdict(choice.execution), "milliseconds": choice.milliseconds, "fault": choice.fault}
    # Another run may write the same file at the same time, and without it nothing is lost but time.
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(content))
        part.replace(file)
