"""A run as TensorBoard shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ddrank_core import Event, RunFailed, RunFinished, RunStarted, SinkWriter, component, parameter
from ddrank_sinks import values
from ddrank_sinks.files import check_folder, place
from ddrank_sinks.libraries import check_installed
from ddrank_sinks.numbers import Numbers

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@component
class TensorBoard:
    """Write curves of accuracies by arm, of trials done and failed, and the scores beside the config.

    A run that goes on after it was stopped writes a file of its own beside the earlier one, which holds the
    trials that were read back too; TensorBoard then shows that one.
    """

    folder: Path | None = parameter(
        "where the event files are put; tensorboard in the run folder if it is not given", default=None
    )

    def check(self) -> None:
        """Refuse a folder that cannot be written, and a TensorBoard that is not there."""
        check_folder(self.folder)
        check_installed("tensorboard")

    def open(self, event: RunStarted) -> SinkWriter:
        """Begin with the config, as text."""
        from torch.utils.tensorboard import SummaryWriter

        folder = place(self.folder, event, "tensorboard")
        # Runs that share a folder that was given stand beside each other.
        if self.folder is not None:
            folder = folder / (event.name if event.folder is None else event.folder.name)
        return _Writer(SummaryWriter(str(folder), purge_step=0), event)


class _Writer:
    def __init__(self, tensorboard: SummaryWriter, event: RunStarted) -> None:
        self._tensorboard = tensorboard
        self._config = values.strict(event.config, in_config=True)
        self._numbers = Numbers()
        text = json.dumps(self._config, indent=2, ensure_ascii=False)
        self._text("run", f"**{event.name}** on {event.device}, {event.trials} trials")
        self._text("config", f"```json\n{text}\n```")

    def write(self, event: Event) -> None:
        """Add the event's points to the curves."""
        numbers = self._numbers.of(event)
        for number in numbers:
            self._tensorboard.add_scalar(number.name, number.value, number.step)
        if isinstance(event, RunFinished):
            self._scores(event)
        elif isinstance(event, RunFailed):
            self._text("run", f"stopped: {event.error}")
        if numbers or isinstance(event, (RunFinished, RunFailed)):
            self._tensorboard.flush()

    def close(self) -> None:
        """Close the event file."""
        self._tensorboard.close()

    def _scores(self, event: RunFinished) -> None:
        """Add the scores as a table, and the config beside them as TensorBoard's hyperparameters."""
        from torch.utils.tensorboard.summary import hparams

        rows = ["| score | mean | ± (95 %) | n |", "|---|---|---|---|"]
        for score in event.scores.values():
            mean = score.reason or "undefined" if score.mean is None else f"{score.mean:.4f}"
            rows.append(f"| {score.name} | {mean} | {_shown(score.ci95)} | {score.n} |")
        self._text("scores", "\n".join(rows))
        means = {f"scores/{name}": s.mean for name, s in event.scores.items() if s.mean is not None}
        for summary in hparams(values.flat(self._config), means):
            self._tensorboard._get_file_writer().add_summary(summary)

    def _text(self, name: str, text: str) -> None:
        self._tensorboard.add_text(name, text, 0)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
