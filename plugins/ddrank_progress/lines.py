"""The display for a log file or a pipe: a plain line at the start, now and then, and at the end."""

from __future__ import annotations

from typing import TextIO

from ddrank_progress.status import Status, clock

SECONDS_BETWEEN = 10.0


class Lines:
    """Writes a line about a run at most every `SECONDS_BETWEEN` seconds."""

    def __init__(self, status: Status, stream: TextIO) -> None:
        self._status = status
        self._stream = stream
        self._last_shown = 0.0
        arms = ", ".join(status.arms)
        self._write(f"{status.trials} trials ({arms}) on {status.device}")

    def show(self, now: float) -> None:
        """Write where the run is, unless a line has just been written."""
        seconds = self._status.seconds(now)
        if seconds - self._last_shown < SECONDS_BETWEEN:
            return
        self._last_shown = seconds
        left = self._status.seconds_left()
        parts = [
            f"{100 * self._status.fraction():.0f} %",
            f"trials {self._status.trials_done}/{self._status.trials}",
            f"{self._status.failed} failed" if self._status.failed else "",
            f"{clock(seconds)} elapsed",
            "time left unknown" if left is None else f"about {clock(left)} left",
            self._status.training,
            f"last: {self._status.last}" if self._status.last else "",
        ]
        self._write(", ".join(part for part in parts if part))

    def close(self, now: float, *, finished: bool) -> None:
        """Write the last line."""
        word = "finished" if finished else "stopped"
        done = f"{self._status.trials_done}/{self._status.trials} trials"
        failed = f", {self._status.failed} failed" if self._status.failed else ""
        self._write(f"{word} after {clock(self._status.seconds(now))}, {done}{failed}")

    def _write(self, text: str) -> None:
        # A log that is read as it grows needs each line at once.
        print(f"{self._status.name}: {text}", file=self._stream, flush=True)
