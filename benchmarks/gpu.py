"""Check and measure what a GPU does: the same numbers as a CPU, a whole evaluation, the peak, a profile.

    python benchmarks/gpu.py                             # all parts, some minutes on an H100
    python benchmarks/gpu.py correctness profile         # some of them
    python benchmarks/gpu.py --device cpu --tiny         # tries the script where there is no GPU

Every part writes gpu-PART.json into results/DEVICE as it ends, and gpu.md, a table of all that are there. The
peer's time is read from what `one_trial.py --device cuda --output FILE` wrote, given as `--peer FILE`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import attrs
import common
import torch
import trace_file
from torch import Tensor, nn

from ddrank_core.asked import Asked
from ddrank_core.engine.bench.arithmetic import Peak, matmul_peak
from ddrank_core.engine.bench.pace import ready_trainer, time_arm
from ddrank_core.engine.capture import Capture
from ddrank_core.engine.cohort import train_cohort
from ddrank_core.engine.cohort_probe import Probe
from ddrank_core.engine.cohorts import Cohorts
from ddrank_core.engine.device import deterministic, keep_freed_memory, resolve
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.plan import Arm, Training, Trial
from ddrank_core.engine.run import execute
from ddrank_core.engine.train import DIVERGENCE_CHECK_EPOCHS, Setting, accuracy, predict, train
from ddrank_core.engine.trial import Trainer
from ddrank_core.store import TrialStore

Rows = list[list[str]]
Part = Callable[[argparse.Namespace, Path], dict[str, Any]]
STEPS = 20
"""After so many, float64 must agree to the tolerance."""
TOLERANCE = 1e-9
PROFILED = 10
"""Epochs of the profile: between two checks for divergence, which read from the device."""


def main() -> None:
    args = parse()
    folder = args.output or common.results_folder(args.device)
    keep_freed_memory(resolve(args.device))
    for name in args.parts:
        clock = time.perf_counter()
        about = common.machine(args.device)
        with tempfile.TemporaryDirectory() as scratch, deterministic(resolve(args.device)):
            found = PARTS[name](args, Path(scratch))
        seconds = round(time.perf_counter() - clock, 1)
        content = {"machine": about, "versions": common.versions(), "tiny": args.tiny, "seconds": seconds}
        common.write_json(folder / f"gpu-{name}.json", {"what": name, **content, **found})
        (folder / "gpu.md").write_text(text_of(folder) + "\n")
        print(f"{name}: {seconds} s", file=sys.stderr)
        print(common.markdown([("", name, ""), *found["rows"]]), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    # Checked below: argparse holds an empty list against `choices`.
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} [all]")
    parser.add_argument("--device", type=common.device, default="cuda", help="cuda or cpu [cuda]")
    parser.add_argument("--peer", type=Path, help="the .json of one_trial.py on this device")
    parser.add_argument("--cohort", type=int, default=50, help="trials at once in peak and profile [50]")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "tf32", "bf16"], help="[fp32 bf16]")
    parser.add_argument("--seeds", type=int, default=20, help="of the comparison of precisions [20]")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds of a measurement of epochs [3]")
    parser.add_argument("--tiny", action="store_true", help="a small network, few trials and epochs")
    parser.add_argument("--output", type=Path, help="folder for the results [results/DEVICE]")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    args.parts = args.parts or list(PARTS)
    if args.precision is None:
        args.precision = ["fp32"] if args.device == "cpu" else ["fp32", "bf16"]
    if args.tiny:
        args.cohort, args.seeds, args.budget = 4, 3, 0.2
    return args


def text_of(folder: Path) -> str:
    """Return a table of all parts that have been measured."""
    parts = []
    for name in PARTS:
        file = folder / f"gpu-{name}.json"
        if file.exists():
            found = json.loads(file.read_text())
            about = common.heading(found["machine"], found["versions"])
            tiny = " Tiny sizes: these are no results." if found["tiny"] else ""
            table = common.markdown([("", "", ""), *found["rows"]])
            parts.append(f"## {name.capitalize()}\n\n{about}; took {found['seconds']} s.{tiny}\n\n{table}")
    return "\n\n".join(parts)


# -- trials as a run has them ------------------------------------------------------------------


@attrs.frozen(eq=False)
class Trials:
    """Trials of one arm, with what they train on."""

    trainer: Trainer
    arm: Arm
    trials: Sequence[Trial]
    training: Training

    @classmethod
    def of(cls, case: common.Case, device: str, folder: Path, count: int, epochs: int) -> Trials:
        """Return the first trials of a case's only arm."""
        trainer = ready_trainer(common.prepare_case(folder, case, device))
        plan = trainer.plan
        arm = plan.trained[0]
        trials = plan.first_trials(arm, plan.rungs[0], plan.candidates)[:count]
        return cls(trainer, arm, trials, attrs.evolve(arm.training, epochs=epochs))

    def probe(self) -> Probe:
        """Return how a run would train them at once."""
        return Cohorts(self.trainer, len(self.trials)).probe(self.arm, self.trials[0])

    def networks(self, double: bool = False) -> list[nn.Module]:
        """Return new networks with the trials' initial weights."""
        networks = [self.trainer.fresh(trial) for trial in self.trials]
        return [network.double() for network in networks] if double else networks

    def data(self, double: bool = False) -> ImageSet:
        """Return what they all train on."""
        found = self.trainer.material.of(self.arm.training, self.trials[0], self.trainer.setting.teachers)
        return attrs.evolve(found, images=found.images.double()) if double else found

    def alone(self, setting: Setting, double: bool = False) -> list[nn.Module]:
        """Return their networks, trained one by one."""
        networks, data = self.networks(double), self.data(double)
        for network, trial in zip(networks, self.trials, strict=True):
            train(network, data, self.training, trial.learning_rate, trial.seed, setting, lambda epoch: None)
        return networks

    def together(
        self,
        setting: Setting,
        folded: bool,
        capture: Capture | None = None,
        double: bool = False,
        after_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> list[nn.Module]:
        """Return their networks, trained at once."""
        networks, data = self.networks(double), self.data(double)
        rates, seeds = zip(*((trial.learning_rate, trial.seed) for trial in self.trials), strict=True)
        sets = [data] * len(networks)
        train_cohort(
            networks, sets, self.training, rates, seeds, setting, after_epoch, folded, capture=capture
        )
        return networks


def case_of(args: argparse.Namespace, **changes: Any) -> common.Case:
    """Return a case with one arm and 50 trials."""
    case = common.Case(scores=("hlr",), repeats=10, test_images=1_000)
    tiny: dict[str, Any] = {"student": common.TINY, "side": 8} if args.tiny else {}
    return attrs.evolve(case, **tiny, **changes)


def largest(ones: Sequence[nn.Module], others: Sequence[nn.Module]) -> float:
    """Return the largest difference between two lists of networks, in any weight or buffer."""
    pairs = zip(map(flat, ones), map(flat, others), strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)


def flat(network: nn.Module) -> Tensor:
    return torch.cat([tensor.detach().cpu().double().flatten() for tensor in network.state_dict().values()])


# -- the same numbers --------------------------------------------------------------------------


def correctness(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare the device with the CPU, cohorts with trials alone, captured steps with others, precisions."""
    found = {
        **float64_differences(args, folder),
        **captured_differences(args, folder),
        "accuracies": precision_accuracies(args, folder),
    }
    rows = [
        [f"{name.replace('_', ' ')}, float64, {STEPS} steps", f"{found[name]:.1e}", verdict(found[name])]
        for name in ("device_against_cpu", "cohort_against_alone", "folded_cohort_against_alone")
        if found[name] is not None
    ]
    for augmentation, difference in found["captured_against_uncaptured"].items():
        rows.append([f"captured against not, fp32, {augmentation}", *difference])
    return {"rows": [*rows, *accuracy_rows(found["accuracies"])], **found}


def verdict(difference: float) -> str:
    return "agrees" if difference <= TOLERANCE else f"more than {TOLERANCE:g} APART"


def float64_differences(args: argparse.Namespace, folder: Path) -> dict[str, float | None]:
    """Return the largest differences in float64 after 20 steps."""
    # Two rates and two repeats; without draws of the device, whose generator is another one.
    case = case_of(args, learning_rates=(0.01, 0.05), repeats=2)
    here, cpu = (Trials.of(case, device, folder, 4, STEPS) for device in (args.device, "cpu"))
    setting, probe = here.trainer.setting, here.probe()
    alone = here.alone(setting, double=True)
    there = cpu.alone(cpu.trainer.setting, double=True)
    vmapped = here.together(setting, folded=False, double=True)
    folded = here.together(setting, folded=True, double=True) if probe.folded else None
    return {
        "device_against_cpu": largest(alone, there),
        "cohort_against_alone": largest(vmapped, alone),
        "folded_cohort_against_alone": None if folded is None else largest(folded, alone),
    }


def captured_differences(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return how far captured and uncaptured cohorts are apart in fp32, without and with DSA."""
    found: dict[str, list[str]] = {}
    for augmentation in ("none", "dsa"):
        case = case_of(args, augmentation=() if augmentation == "none" else (augmentation,))
        some = Trials.of(case, args.device, folder, 4, STEPS)
        setting, probe = some.trainer.setting, some.probe()
        if probe.capture is None or probe.capture.failed is not None:
            reason = "no CUDA graphs here" if probe.capture is None else probe.capture.failed
            found[augmentation] = ["not captured", str(reason)]
            continue
        plain = some.together(setting, probe.folded)
        difference = largest(some.together(setting, probe.folded, probe.capture), plain)
        views = "with their views" if probe.capture.views else "without their views"
        found[augmentation] = [f"{difference:.1e}", probe.capture.failed or f"steps {views}"]
    return {"captured_against_uncaptured": found}


def precision_accuracies(args: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Return the accuracies of the same trials, trained alone in fp32 and at once in every precision."""
    case = case_of(args, ipc=1, learning_rates=(0.01,), repeats=args.seeds, test_images=2_000)
    some = Trials.of(case, args.device, folder, args.seeds, 5 if args.tiny else 200)
    setting, folded = some.trainer.setting, some.probe().folded
    trained = {"fp32, alone": some.alone(setting)}
    for precision in ("fp32", "bf16") if args.device == "cpu" else ("fp32", "tf32", "bf16"):
        trained[f"{precision}, cohort"] = some.together(attrs.evolve(setting, precision=precision), folded)
    return {name: [tested(some, network) for network in networks] for name, networks in trained.items()}


def tested(some: Trials, network: nn.Module) -> float:
    predictions = predict(network, some.trainer.material.test, some.trainer.setting)
    labels = some.trainer.prepared.real.test_labels
    return 0.0 if predictions is None else accuracy(predictions, labels)


def accuracy_rows(accuracies: dict[str, list[float]]) -> Rows:
    """Return the mean accuracies, and the paired differences to fp32 alone with their standard errors."""
    base = accuracies["fp32, alone"]
    rows = []
    for name, values in accuracies.items():
        apart = [100 * (value - other) for value, other in zip(values, base, strict=True)]
        error = stdev(apart) / len(apart) ** 0.5
        paired = "" if values is base else f"{fmean(apart):+.2f} ± {error:.2f} points (standard error)"
        mean = f"{100 * fmean(values):.2f} %"
        rows.append([f"accuracy, {name}, {len(values)} seeds", mean, paired])
    return rows


# -- a whole evaluation ------------------------------------------------------------------------


def evaluation(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the hard-label LRS evaluation of CIFAR-10's size at IPC 10 from start to end, on made-up images."""
    case = common.Case(train_images=common.CIFAR_TRAIN)
    if args.tiny:
        case = common.Case(student=common.TINY, side=8, epochs=5, test_images=500, train_images=1_000)
    # Of tiny sizes a ratio would mean nothing.
    peer = None if args.peer is None or args.tiny else peer_seconds(args.peer, args.device)
    rows, seconds, notes = [], {}, {}
    for precision in args.precision:
        run = common.prepare_case(folder / precision, attrs.evolve(case, precision=precision), args.device)
        clock = time.perf_counter()
        with closing(TrialStore(folder / precision / "store")) as store:
            outcome = execute(run, store, lambda hook, event: None)
        seconds[precision], notes[precision] = time.perf_counter() - clock, list(outcome.notes)
        times = None if peer is None else common.number(peer / seconds[precision])
        ratio = "" if times is None else f"{times} times as fast as ddranking 0.2.0"
        title = f"whole evaluation, {run.plan.count()} trials of {case.epochs} epochs, {precision}"
        rows.append([title, f"{common.number(seconds[precision])} s", ratio])
    if peer is not None:
        rows.append(["ddranking 0.2.0, extrapolated", f"{common.number(peer)} s", ""])
    return {"rows": rows, "evaluation_seconds": seconds, "peer_seconds": peer, "notes": notes}


def peer_seconds(file: Path, device: str) -> float:
    """Return the peer's extrapolated evaluation that one_trial.py wrote.

    Raises:
        SystemExit: if it is of another case, or of another kind of device.
    """
    content = json.loads(file.read_text())
    settings, row = content["settings"], content["rows"][-1]
    same_kind = settings["device"].split(":")[0] == device.split(":")[0]
    if not same_kind or (row["ipc"], settings["trial_epochs"]) != (10, common.EPOCHS):
        raise SystemExit(f"--peer {file}: is not of IPC 10, {common.EPOCHS} epochs and --device {device}")
    found: float = row["peer"]["median"]
    return found


# -- the arithmetic ----------------------------------------------------------------------------


def peak(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure a cohort's share of what the device does in matrix products of the same precision."""
    rows, found = [], []
    for precision in args.precision:
        measured: Peak | None = None
        for ipc in (1, 10, 50):
            case = case_of(args, ipc=ipc, precision=precision, epochs=1_000)
            trainer = ready_trainer(common.prepare_case(folder / f"{precision}-{ipc}", case, args.device))
            measured = measured or matmul_peak(trainer, 1, args.budget)
            asked = Asked(workers=1, cohort=args.cohort)
            pace = time_arm(trainer, trainer.plan.trained[0], asked, args.budget)
            share = pace.flops_per_second.median / measured.flops_per_second.median
            milliseconds = 1000 * pace.trial_epoch_seconds.median
            found.append(
                {
                    "precision": precision,
                    "ipc": ipc,
                    "cohort": pace.cohort,
                    "trial_epoch_ms": milliseconds,
                    "images_per_second": pace.images_per_second.median,
                    "flops_per_second": pace.flops_per_second.median,
                    "peak_flops_per_second": measured.flops_per_second.median,
                    "share_of_peak": share,
                }
            )
            title = f"cohort of {pace.cohort}, IPC {ipc}, {precision}: share of the matmul peak"
            rows.append([title, f"{100 * share:.1f} %", f"{common.number(milliseconds)} ms per trial-epoch"])
        if measured is not None:
            teraflops = measured.flops_per_second.median / 1e12
            rows.append([f"matmul peak, {precision}", f"{common.number(teraflops)} TFLOP/s", ""])
    return {"rows": rows, "cohorts": found}


# -- a profile ---------------------------------------------------------------------------------


def profile(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Profile some epochs of a cohort as a run trains it: the share in kernels, and waits of the host."""
    rows, found = [], {}
    for precision in args.precision:
        case = case_of(args, precision=precision)
        epochs = DIVERGENCE_CHECK_EPOCHS + 2 + PROFILED
        some = Trials.of(case, args.device, folder / precision, args.cohort, epochs)
        recorded = profiled(some, folder / f"{precision}.json")
        found[precision] = attrs.asdict(recorded)
        rows += profile_rows(precision, recorded)
    return {"rows": rows, "profiles": found, "epochs": PROFILED}


def profiled(some: Trials, file: Path) -> trace_file.Found:
    """Train a cohort, and profile its last epochs."""
    probe, device = some.probe(), some.trainer.device
    recorder = torch.profiler.profile()
    region = torch.profiler.record_function(trace_file.REGION)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def after_epoch(epoch: int) -> None:
        if epoch == some.training.epochs - PROFILED:
            recorder.start()
            wait()
            region.__enter__()
        elif epoch == some.training.epochs:
            region.__exit__(None, None, None)
            wait()
            recorder.stop()

    some.together(some.trainer.setting, probe.folded, probe.capture, after_epoch=after_epoch)
    recorder.export_chrome_trace(str(file))
    return trace_file.read(file)


def profile_rows(precision: str, found: trace_file.Found) -> Rows:
    """Return what a profile comes to, per epoch."""
    waits = ", ".join(f"{name} {count}" for name, count in found.waits.items()) or "none"
    launches = ", ".join(f"{name} {count / PROFILED:g}" for name, count in found.launches.items()) or "none"
    copies = ", ".join(f"{name} {count / PROFILED:g}" for name, count in found.copies.items()) or "none"
    slowest = "; ".join(f"{name[:60]} {100 * share:.0f} %" for name, share in found.slowest[:5])
    return [
        [f"{precision}: an epoch of the cohort", f"{common.number(found.seconds / PROFILED * 1e3)} ms", ""],
        [f"{precision}: share of time in kernels", f"{100 * found.kernel_share:.1f} %", ""],
        [f"{precision}: waits of the host in {PROFILED} epochs", str(sum(found.waits.values())), waits],
        [f"{precision}: launches per epoch", launches, ""],
        [f"{precision}: copies per epoch", copies, ""],
        [f"{precision}: where the time goes", slowest, ""],
    ]


PARTS: dict[str, Part] = {
    "correctness": correctness,
    "evaluation": evaluation,
    "peak": peak,
    "profile": profile,
}


if __name__ == "__main__":
    main()
