"""A run at Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ddrank_core import Event, RunFailed, RunFinished, RunStarted, SinkWriter, component, parameter
from ddrank_sinks import values
from ddrank_sinks.files import check_folder, place
from ddrank_sinks.libraries import check_installed
from ddrank_sinks.numbers import Numbers

if TYPE_CHECKING:
    from wandb import Run


@component
class WeightsAndBiases:
    """Log a run to Weights & Biases, whose own settings (`wandb login`, WANDB_MODE, ...) hold.

    A run that goes on after it was stopped is one more run there, in the same group; it holds the trials
    that were read back too. Of a process that is killed, what its library has not written yet is lost: up to
    15 seconds.
    """

    project: str = parameter("the project", default="ddrank")
    entity: str | None = parameter("the user or team; your own if it is not given", default=None)
    mode: Literal["online", "offline"] | None = parameter(
        "offline keeps everything in files, for 'wandb sync'; if it is not given, WANDB_MODE says",
        default=None,
    )
    folder: Path | None = parameter("where its files are put; in the run folder if not given", default=None)

    def check(self) -> None:
        """Refuse a folder that cannot be written, and a library that is not there."""
        check_folder(self.folder)
        check_installed("wandb")

    def open(self, event: RunStarted) -> SinkWriter:
        """Begin a run there."""
        import wandb

        folder = place(self.folder, event, "")
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=str(folder),
            name=event.name,
            group=event.name if event.folder is None else event.folder.name,
            config=values.strict(event.config, in_config=True),
            reinit="create_new",
            # The run's own output is not for others, and stderr is the progress display's.
            settings=wandb.Settings(console="off", silent=True),
        )
        return _Writer(run)


class _Writer:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._numbers = Numbers()
        self._exit_code = 1
        run.define_metric("*", step_metric="trials/done")
        run.define_metric("final_accuracy/*", step_metric="repeat")

    def write(self, event: Event) -> None:
        """Log the event's points; of the end, the scores as the run's summary too."""
        numbers = self._numbers.of(event)
        if isinstance(event, RunFinished):
            self._exit_code = 0
            for number in numbers:
                if number.name.startswith("final_accuracy/"):
                    self._run.log({number.name: number.value, "repeat": number.step})
                else:
                    self._run.summary[number.name] = number.value
        elif isinstance(event, RunFailed):
            self._run.summary["error"] = event.error
        elif numbers:
            self._run.log({number.name: number.value for number in numbers})

    def close(self) -> None:
        """End the run there: as failed, unless it came to its scores."""
        self._run.finish(exit_code=self._exit_code)
