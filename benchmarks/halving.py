"""Measure how well `search: halving` agrees with the full grid of `strict`, and print tables.

    DDRANK_TEST_DATA=FOLDER python benchmarks/halving.py --workers 2

Halving trains some of the grid's own trials: same seeds, same images. So every rate is trained, validated
and tested in a pool of repeats, once; then both searches are replayed, with the protocol's own methods, on
many groups of repeats drawn from the pool. `--check` runs both for real too, and compares.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import attrs

from ddrank_core.config import RunConfig, load_run
from ddrank_core.engine.score import score_all, summarise_arm
from ddrank_core.engine.selection import GRID, Strict
from ddrank_core.registry import default_registry
from ddrank_core.results import ArmResult, ScoreResult, TrialResult

ROOT = Path(__file__).resolve().parent.parent
DDRANK = (sys.executable, "-m", "ddrank_core")
SCORES = ("hlr", "ior", "lrs", "ars")
CHECK_REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Case:
    """A config, what is changed in it, and how many repeats the pool has."""

    name: str
    config: str
    pool: int
    changes: Mapping[str, object] = field(default_factory=dict)
    file: str | None = None
    """A published set in the folder of test data, with the data set that it is of."""
    dataset: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    """Field -> place in the folder of test data."""
    distil: Mapping[str, object] | None = None
    """Changes to the quickstart's distillation, where its set is not the one that is committed."""


CASES = (
    Case(name="digits-ipc1", config="configs/quickstart.yaml", pool=20),
    Case(
        name="digits-ipc10",
        config="configs/quickstart.yaml",
        pool=10,
        changes={"distilled.ipc": 10},
        distil={"ipc": 10, "method.iterations": 200},
    ),
    Case(
        name="mnist-ipc1",
        config="configs/mnist-dc-ipc1.yaml",
        pool=10,
        changes={
            "student.width": 16,
            "recipe.epochs": 100,
            "recipe.schedule.milestones": "[50]",
            "scores": "[hlr, ior, lrs]",
        },
        file="distilled/mnist-ipc1-dc/res_DC_MNIST_ConvNet_1ipc.pt",
        dataset="mnist",
        data={"dataset.root": "real/mnist"},
    ),
)


class OneRate(Strict):
    """`strict` with a single rate, which is validated all the same: as one rate of a grid is."""

    def validation_share(self, candidates: Sequence[float]) -> float:
        """Return the share that a grid would set aside, so that every image is where it would be."""
        return self.validation


@dataclass(frozen=True)
class Pool:
    """Every trial of a case: each arm, rate and repeat, validated and tested."""

    config: RunConfig
    trials: Mapping[tuple[str, str, float, int], TrialResult]
    """By arm, phase, rate and repeat."""
    same_as: Mapping[str, str | None]
    repeats: int

    @property
    def arms(self) -> list[str]:
        """Return the arms that have trials of their own."""
        return [arm for arm, twin in self.same_as.items() if twin is None]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search came to on a group of repeats."""

    trained: Mapping[str, tuple[TrialResult, ...]]
    """Arm -> its trials, those after a search apart included."""
    rates: Mapping[str, float]
    validation: Mapping[str, float]
    """Arm -> mean validation accuracy of the chosen rate over the group."""
    test: Mapping[str, float | None]
    """Arm -> mean test accuracy; None where every selected trial diverged."""
    scores: Mapping[str, ScoreResult]


@dataclass(frozen=True)
class Group:
    """Both searches on one group, and the grid on another group that shares no repeat with it."""

    grid: Search
    halving: Search
    other: Search


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How one arm of one group was chosen by halving, beside the grid; accuracies in points."""

    same: bool
    same_in_other: bool
    """Whether the grid chooses the same rate on other repeats."""
    grids_rate_tried: int
    """In how many repeats halving trained the rate that the grid chooses."""
    validation_lost: float
    test: float
    """Test accuracy under halving minus that under the grid."""


def main() -> None:
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    groups: dict[tuple[str, int], list[Group]] = {}
    pools: dict[str, Pool] = {}
    for case in CASES:
        if args.only is not None and case.name not in args.only:
            continue
        try:
            config = load(case, args)
            path = args.work / f"{case.name}.json"
            if not path.exists():
                path.write_text(json.dumps(measure(case, config, args)), encoding="utf-8")
        except subprocess.CalledProcessError as error:
            # ddrank has said on stderr what is wrong.
            sys.exit(error.returncode)
        pool = pools[case.name] = read(path, config)
        if args.check:
            check(case, pool, args)
        for repeats in args.repeats:
            # Two groups that share no repeat must fit in.
            if 2 * repeats <= pool.repeats:
                groups[case.name, repeats] = draw(pool, repeats, args.draws)
    print("\n\n".join((case_table(groups), arm_table(groups, pools), score_table(groups))))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = os.environ.get("DDRANK_TEST_DATA")
    parser.add_argument("--data", type=Path, default=data, help="the folder of test data [$DDRANK_TEST_DATA]")
    parser.add_argument("--work", type=Path, default=Path("runs/halving"), help="[runs/halving]")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="only these cases")
    parser.add_argument("--repeats", type=int, nargs="+", default=[5, 10], help="repeats of a run [5 10]")
    parser.add_argument("--draws", type=int, default=1000, help="groups drawn from a pool [1000]")
    parser.add_argument("--workers", type=int, default=1, help="processes that train [1]")
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    parser.add_argument("--check", action="store_true", help="run both searches for real, too")
    args = parser.parse_args()
    if args.data is None and any(args.only is None or case.name in args.only for case in CASES if case.file):
        parser.error("give --data, or set DDRANK_TEST_DATA: the folder with real/ and distilled/")
    return args


# -- the pool ----------------------------------------------------------------------------------


def load(case: Case, args: argparse.Namespace) -> RunConfig:
    """Return the case's config; its distilled set is made first, unless it is there."""
    changes = dict(case.changes)
    if case.file or case.distil:
        path = (args.work / "sets" / f"{case.name}.safetensors").resolve()
        make_set(case, path, args)
        changes["distilled.path"] = path
    changes.update({name: (args.data / place).resolve() for name, place in case.data.items()})
    return load_run(ROOT / case.config, default_registry(), settings(changes))


def make_set(case: Case, path: Path, args: argparse.Namespace) -> None:
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    if case.file:
        command: tuple[object, ...] = ("import", args.data / case.file, path, "--dataset", case.dataset)
    else:
        changes = settings({**(case.distil or {}), "output": path})
        sets = [part for change in changes for part in ("--set", change)]
        command = ("distill", ROOT / "configs/distill/digits-dm-ipc1.yaml", *sets, "--device", args.device)
    subprocess.run([*DDRANK, *map(str, command)], check=True)


def settings(changes: Mapping[str, object]) -> list[str]:
    return [f"{name}={value}" for name, value in changes.items()]


def measure(case: Case, config: RunConfig, args: argparse.Namespace) -> dict[str, Any]:
    """Train every rate of the grid in every repeat of the pool, and test each one."""
    trials: list[TrialResult] = []
    same_as: dict[str, str | None] = {}
    for rate in GRID:
        print(f"{case.name}: {case.pool} repeats at rate {rate:g}", file=sys.stderr, flush=True)
        protocol = OneRate(repeats=case.pool, learning_rates=(rate,))
        found, same_as = run(config, protocol, args.work / "pool", args)[:2]
        trials += found
    return {"same_as": same_as, "trials": [attrs.asdict(trial) for trial in trials]}


def run(
    config: RunConfig, protocol: Strict, cache: Path, args: argparse.Namespace
) -> tuple[tuple[TrialResult, ...], dict[str, str | None], Mapping[str, ScoreResult]]:
    """Run the config under another protocol; return its trials, what arms share, and the scores."""
    from ddrank_core.engine.device import resolve
    from ddrank_core.engine.prepare import prepare
    from ddrank_core.engine.run import execute
    from ddrank_core.store import TrialStore

    config = attrs.evolve(config, protocol=attrs.evolve(config.protocol, component=protocol))
    prepared = prepare(config, config.name, default_registry(), resolve(args.device))
    with closing(TrialStore(cache)) as store:
        outcome = execute(prepared, store, lambda hook, event: None, args.workers)
    same_as = {arm.name: arm.same_as for arm in prepared.plan.arms}
    return outcome.trials, same_as, outcome.scores


def read(path: Path, config: RunConfig) -> Pool:
    """Return the trials that `measure` left."""
    values = json.loads(path.read_text(encoding="utf-8"))
    trials = [TrialResult(**trial) for trial in values["trials"]]
    by_place = {(t.arm, t.phase, t.learning_rate, t.repeat): t for t in trials}
    return Pool(config, by_place, values["same_as"], 1 + max(t.repeat for t in trials))


# -- the replay --------------------------------------------------------------------------------


def replay(pool: Pool, protocol: Strict, group: Sequence[int]) -> Search:
    """Return what a search comes to whose repeats 0, 1, ... are those of the pool in `group`."""
    trained, chosen, validation = {}, {}, {}
    for arm in pool.arms:
        apart = (arm, "search", GRID[0], 0) in pool.trials
        found = search(pool, protocol, arm, "search" if apart else "final", group)
        selected = protocol.select(found)
        rate = selected[0].learning_rate
        validation[arm] = fmean(t.validation_accuracy or 0.0 for t in selected)
        if apart:
            # An arm on the full real set is trained anew, on the whole of it.
            selected = tuple(at(pool, arm, "final", rate, place, group) for place in range(len(group)))
            found = [*found, *selected]
        trained[arm], chosen[arm] = tuple(found), selected
    arms = arm_results(pool, chosen)
    return Search(
        trained=trained,
        rates={arm: selected[0].learning_rate for arm, selected in chosen.items()},
        validation=validation,
        test={arm: arms[arm].mean for arm in pool.arms},
        scores=score_all(pool.config, arms),
    )


def search(pool: Pool, protocol: Strict, arm: str, phase: str, group: Sequence[int]) -> list[TrialResult]:
    """Return the trials that the protocol asks for, rung after rung, as the engine does."""
    found: list[TrialResult] = []
    rates: Sequence[float] = GRID
    for rung in protocol.rungs(len(GRID)):
        if found:
            rates = protocol.keep(found, rung.rates)
        found += [at(pool, arm, phase, rate, place, group) for place in rung.repeats for rate in rates]
    return found


def at(pool: Pool, arm: str, phase: str, rate: float, place: int, group: Sequence[int]) -> TrialResult:
    """Return the pool's trial as the repeat that stands at `place` of the group."""
    return attrs.evolve(pool.trials[arm, phase, rate, group[place]], repeat=place)


def arm_results(pool: Pool, chosen: Mapping[str, Sequence[TrialResult]]) -> dict[str, ArmResult]:
    repeats = len(next(iter(chosen.values())))
    given = pool.config.full_data.accuracy
    arms = {
        name: summarise_arm(
            name,
            [t.accuracy for t in chosen[twin or name]],
            [t.learning_rate for t in chosen[twin or name]],
            twin,
        )
        for name, twin in pool.same_as.items()
    }
    if given is not None:
        arms["full-hard"] = summarise_arm("full-hard", (given,) * repeats, (None,) * repeats)
    return arms


def draw(pool: Pool, repeats: int, draws: int) -> list[Group]:
    """Return both searches on groups of repeats drawn from the pool, in random order."""
    source = random.Random(0)
    grid, halving = Strict(repeats=repeats), Strict(repeats=repeats, search="halving")
    groups = []
    for _ in range(draws):
        drawn = source.sample(range(pool.repeats), 2 * repeats)
        one, other = drawn[:repeats], drawn[repeats:]
        groups.append(Group(replay(pool, grid, one), replay(pool, halving, one), replay(pool, grid, other)))
    return groups


def choices(groups: Iterable[Group], arm: str) -> list[Choice]:
    """Return how an arm was chosen in each group; groups in which all its trials diverged are left out."""
    return [
        Choice(
            same=g.grid.rates[arm] == g.halving.rates[arm],
            same_in_other=g.grid.rates[arm] == g.other.rates[arm],
            grids_rate_tried=sum(
                t.learning_rate == g.grid.rates[arm]
                for t in g.halving.trained[arm]
                if t.phase == g.grid.trained[arm][0].phase
            ),
            validation_lost=100 * (g.grid.validation[arm] - g.halving.validation[arm]),
            test=100 * (ours - theirs),
        )
        for g in groups
        if (ours := g.halving.test[arm]) is not None and (theirs := g.grid.test[arm]) is not None
    ]


def check(case: Case, pool: Pool, args: argparse.Namespace) -> None:
    """Run both searches for real; stop with an error if a trial or a score is not as replayed."""
    for kind in ("halving", "grid"):
        protocol = Strict(repeats=CHECK_REPEATS, learning_rates=GRID, search=kind)
        # Not the pool's store: nothing that it holds may be read back.
        trials, _, scores = run(pool.config, protocol, args.work / f"check-{kind}", args)
        replayed = replay(pool, protocol, range(CHECK_REPEATS))
        expected = {bare(t) for found in replayed.trained.values() for t in found}
        actual = {bare(t) for t in trials}
        if expected != actual or len(actual) != len(trials):
            sys.exit(f"{case.name}: {kind}: {len(expected ^ actual)} trials are not as replayed")
        tested = [t for t in trials if t.accuracy is not None]
        if any(t.accuracy != pool.trials[t.arm, t.phase, t.learning_rate, t.repeat].accuracy for t in tested):
            sys.exit(f"{case.name}: {kind}: a test accuracy is not the pool's")
        if any(scores[name].values != replayed.scores[name].values for name in scores):
            sys.exit(f"{case.name}: {kind}: a score is not as replayed")
        print(
            f"{case.name}: {kind}: {len(trials)} trials, {len(tested)} tested, as replayed", file=sys.stderr
        )


def bare(trial: TrialResult) -> TrialResult:
    """Return a trial without what differs between two runs of it."""
    return attrs.evolve(trial, accuracy=None, seconds=0.0, reused=False)


# -- the tables --------------------------------------------------------------------------------

CHOICE_HEAD = (
    "same rate",
    "two grids",
    "dropped after 1, 2, 4",
    "validation lost",
    "test, mean",
    "test, where rates differ",
    "test, worst 1 %",
    "test, worst",
)


def choice_cells(found: Sequence[Choice]) -> list[str]:
    """Return what CHOICE_HEAD names; *where rates differ* is the mean, and its mean size."""
    test = sorted(choice.test for choice in found)
    differing = [choice.test for choice in found if not choice.same]
    tried = Counter(choice.grids_rate_tried for choice in found if not choice.same)
    return [
        f"{100 * fmean(choice.same for choice in found):.0f} %",
        f"{100 * fmean(choice.same_in_other for choice in found):.0f} %",
        ", ".join(f"{100 * tried[repeats] / len(found):.0f} %" for repeats in (1, 2, 4)),
        f"{fmean(choice.validation_lost for choice in found):.2f}",
        f"{fmean(test):+.2f}",
        f"{fmean(differing):+.2f} ({fmean(map(abs, differing)):.2f})" if differing else "",
        f"{test[len(test) // 100]:+.2f}",
        f"{test[0]:+.2f}",
    ]


def arms_of(groups: Sequence[Group]) -> list[str]:
    return list(groups[0].grid.trained)


def case_table(groups: Mapping[tuple[str, int], Sequence[Group]]) -> str:
    """Return a row for every case and number of repeats, over its arms; and one over all cases."""
    rows = []
    for repeats in sorted({repeats for _, repeats in groups}):
        cases = {case: found for (case, number), found in groups.items() if number == repeats}
        by_case = {
            c: [x for arm in arms_of(found) for x in choices(found, arm)] for c, found in cases.items()
        }
        for case, found in cases.items():
            rows.append([case, str(repeats), saved([found[0]]), *choice_cells(by_case[case])])
        everything = [choice for found in by_case.values() for choice in found]
        firsts = [found[0] for found in cases.values()]
        rows.append(["all", str(repeats), saved(firsts), *choice_cells(everything)])
    return table(("case", "repeats", "trainings", *CHOICE_HEAD), rows)


def arm_table(groups: Mapping[tuple[str, int], Sequence[Group]], pools: Mapping[str, Pool]) -> str:
    """Return a row for every case, number of repeats and arm."""
    rows = [
        [case, str(repeats), arm, f"{lead(pools[case], arm):.2f}", *choice_cells(choices(found, arm))]
        for (case, repeats), found in groups.items()
        for arm in arms_of(found)
    ]
    return table(("case", "repeats", "arm", "best two apart", *CHOICE_HEAD), rows)


def lead(pool: Pool, arm: str) -> float:
    """Return how far, in points of validation accuracy over the whole pool, the best rate is ahead."""
    by_rate: dict[float, list[float]] = {}
    for (of, _, rate, _), trial in pool.trials.items():
        if of == arm and trial.validation_accuracy is not None:
            by_rate.setdefault(rate, []).append(trial.validation_accuracy)
    second, best = sorted(map(fmean, by_rate.values()))[-2:]
    return 100 * (best - second)


def saved(groups: Sequence[Group]) -> str:
    """Return how many trainings halving does of the grid's: the same in every group."""
    halving = sum(len(trials) for g in groups for trials in g.halving.trained.values())
    grid = sum(len(trials) for g in groups for trials in g.grid.trained.values())
    return f"{halving} of {grid}, {100 * (1 - halving / grid):.0f} % saved"


def score_table(groups: Mapping[tuple[str, int], Sequence[Group]]) -> str:
    """Return, in points, how far apart the scores are, beside the grid's own 95 % intervals."""
    rows = [
        [case, str(repeats), name.upper(), *score_cells(found, name)]
        for (case, repeats), found in groups.items()
        for name in SCORES
        if name in found[0].grid.scores
    ]
    head = ("grid", "±", "halving - grid", "size", "largest", "within ±", "undefined")
    return table(("case", "repeats", "score", *head), rows)


def score_cells(groups: Sequence[Group], name: str) -> list[str]:
    both = [(g.halving.scores[name], g.grid.scores[name]) for g in groups]
    known = [(h.mean, g.mean, g.ci95) for h, g in both if h.mean is not None and g.mean is not None]
    if not known:
        return ["", "", "", "", "", "", "100.0 %"]
    apart = [100 * (h - g) for h, g, _ in known]
    half_width = [100 * (ci95 or 0.0) for _, _, ci95 in known]
    within = fmean(abs(d) <= ci95 for d, ci95 in zip(apart, half_width, strict=True))
    return [
        f"{fmean(100 * g for _, g, _ in known):.2f}",
        f"{fmean(half_width):.2f}",
        f"{fmean(apart):+.2f}",
        f"{fmean(map(abs, apart)):.2f}",
        f"{max(map(abs, apart)):.2f}",
        f"{100 * within:.1f} %",
        f"{100 * (1 - len(known) / len(groups)):.1f} %",
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows))


if __name__ == "__main__":
    main()
