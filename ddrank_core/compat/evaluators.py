"""What ddranking's evaluators have in common: arguments in, one run, numbers and a CSV out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ddrank_core.compat import results
from ddrank_core.compat.config import Config
from ddrank_core.compat.evaluate import Choices, Images, Session
from ddrank_core.compat.findings import Finding, Kind, Release
from ddrank_core.compat.results import Columns
from ddrank_core.compat.translate import translate
from ddrank_core.errors import ConfigError

if TYPE_CHECKING:
    from ddrank_core.engine.run import Outcome

_OURS = ("protocol", "image_space", "download", "seed")


class Evaluator:
    """What all of them share: arguments in, one run, numbers out."""

    _kind: ClassVar[Kind]
    _release: ClassVar[Release] = "0.2"

    outcome: Outcome
    """All that the last `compute_metrics` found: every arm, trial, interval and note."""

    def __init__(self, config: Config | None, arguments: Mapping[str, Any]) -> None:
        from ddrank_core.registry import default_registry

        title = type(self).__name__
        if config is not None and not isinstance(config, Config):
            raise ConfigError(f"{title}: config: must be a Config, such as Config.from_file gives")
        theirs = {key: value for key, value in arguments.items() if key not in _OURS}
        # A config takes the place of all arguments, as it does there.
        old = theirs if config is None else dict(config.config)
        registry = default_registry()
        for problem in registry.problems:
            warnings.warn(problem, stacklevel=4)
        # A config of 0.1 is also given to the evaluators of 0.2, so its keys decide.
        release = None if config is not None and self._release == "0.2" else self._release
        found = translate(old, title, registry, self._kind, release)
        _refuse_lost(found.findings, title)
        _check_single_process(bool(old.get("dist")), title)
        self.findings: tuple[Finding, ...] = found.findings
        """What became of every argument."""
        self.save_path = Path(found.save_path)
        device = old.get("device")
        self._session = Session(
            title,
            found,
            "auto" if device is None else str(device),
            Choices(**{key: arguments[key] for key in _OURS}),
            registry,
        )

    def _run(self, images: Images, **weights: float) -> None:
        self.outcome = self._session.run(images, weights)

    def _finish(self, columns: Columns, keys: Mapping[str, str]) -> dict[str, float]:
        results.write_csv(columns, self.save_path)
        result = results.summary(columns, keys)
        results.show(result, type(self).__name__)
        return result


def _refuse_lost(findings: Sequence[Finding], title: str) -> None:
    for finding in findings:
        if finding.verdict == "left out":
            raise ConfigError(f"{title}: {finding.key}: {finding.text}")


def _check_single_process(dist: bool, title: str) -> None:
    processes = os.environ.get("WORLD_SIZE", "1")
    if dist and processes != "1":
        raise ConfigError(
            f"{title}: dist: a run uses one device, and torchrun started {processes} processes, each "
            "of which would do all of it; start the script with python"
        )
    if dist:
        warnings.warn(f"{title}: dist: the run uses one device", stacklevel=4)


_LRS_KEYS = {
    "hard_label_recovery": "hard_label_recovery",
    "improvement_over_random": "improvement_over_random",
    "lrs": "label_robust_score",
    "ior_hlr": "ior_hlr",
}


class LabelRobust(Evaluator):
    """The evaluators of HLR, IOR, IOR/HLR and LRS."""

    _keys: ClassVar[Mapping[str, str]] = _LRS_KEYS

    def _scores(self, images: Images, weight: float) -> dict[str, float]:
        self._run(images, lrs=weight)
        values = {
            "hard_label_recovery": results.score_values(self.outcome, "hlr", 100),
            "improvement_over_random": results.score_values(self.outcome, "ior", 100),
            "lrs": results.score_values(self.outcome, "lrs"),
            "ior_hlr": results.score_values(self.outcome, "ior_hlr"),
        }
        return self._finish(self._columns(values), self._keys)

    def _columns(self, values: Columns) -> Columns:
        return values


class HardLabels(LabelRobust):
    """Of methods that train with hard labels."""

    _kind = "hard"

    def compute_metrics(
        self,
        image_tensor: Any = None,
        image_path: str | None = None,
        hard_labels: Any = None,
        syn_lr: Any = None,
        lrs_lambda: float = 0.5,
    ) -> dict[str, float]:
        """Train what is needed, write the CSV and return means and standard deviations.

        Raises:
            DDRankError: one line that says what is wrong.
        """
        images = Images(tensor=image_tensor, path=image_path, hard_labels=hard_labels, learning_rate=syn_lr)
        return self._scores(images, lrs_lambda)


class SoftLabels(LabelRobust):
    """Of methods that train with soft labels."""

    _kind = "soft"

    def compute_metrics(
        self,
        image_tensor: Any = None,
        image_path: str | None = None,
        soft_labels: Any = None,
        syn_lr: Any = None,
        lrs_lambda: float = 0.5,
        hard_labels: Any = None,
    ) -> dict[str, float]:
        """Train what is needed, write the CSV and return means and standard deviations.

        `hard_labels` is new: where images do not come class by class, the hard-label arm needs them.

        Raises:
            DDRankError: one line that says what is wrong.
        """
        images = Images(
            tensor=image_tensor,
            path=image_path,
            soft_labels=soft_labels,
            hard_labels=hard_labels,
            learning_rate=syn_lr,
        )
        return self._scores(images, lrs_lambda)


def arguments_of(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return a constructor's arguments out of its `locals()`."""
    return {key: value for key, value in names.items() if key not in ("self", "config", "__class__")}
