"""A run's trials as a Markdown table."""

from __future__ import annotations

from pathlib import Path

from ddrank_core import Event, RunStarted, SinkWriter, TrialFinished, component, parameter


@component
class MarkdownTable:
    """Add a line for each trial that ends to a table that people read, and that renders as it is."""

    path: Path | None = parameter("the file; trials.md in the run folder if it is not given", default=None)
    digits: int = parameter("of an accuracy in percent, behind the point", default=1, minimum=0, maximum=4)

    def open(self, event: RunStarted) -> SinkWriter:
        """Begin the table, or go on with the one of a run that was stopped."""
        path = self.path or (event.folder or Path()) / "trials.md"
        return _Table(path, event.name, self.digits)


class _Table:
    def __init__(self, path: Path, run: str, digits: int) -> None:
        self._digits = digits
        self._file = path.open("a", encoding="utf-8")
        if self._file.tell() == 0:
            self._add(f"# {run}\n\n| trial | arm | learning rate | accuracy |\n|---|---|---|---|")

    def write(self, event: Event) -> None:
        """Add a line, if the event is the end of a trial that was trained."""
        if not isinstance(event, TrialFinished) or event.result.reused:
            return
        result = event.result
        trial = f"{event.done} of {event.total}"
        accuracy = "diverged" if result.diverged else percent(result.validation_accuracy, self._digits)
        self._add(f"| {trial} | {result.arm} | {result.learning_rate:g} | {accuracy} |")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, line: str) -> None:
        self._file.write(f"{line}\n")
        # A run that is killed never closes the file.
        self._file.flush()


def percent(accuracy: float | None, digits: int) -> str:
    """Return a fraction as a person reads it; nothing where there is none, as before the last choice.

    >>> percent(0.8125, 1)
    '81.2 %'
    """
    return "" if accuracy is None else f"{100 * accuracy:.{digits}f} %"
