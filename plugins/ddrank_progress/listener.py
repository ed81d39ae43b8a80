"""Keeps the display of the run that is under way, and takes it down whatever happens."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from ddrank_core import (
    EpochFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    TrialFailed,
    TrialFinished,
    TrialStarted,
)
from ddrank_progress.bar import Bar
from ddrank_progress.lines import Lines
from ddrank_progress.status import Status


class Listener:
    """Feeds a run's events to its status and its display. Does nothing between runs.

    `stream` is stderr at the run's start where it is not given; `now` is a clock that never goes back.
    """

    def __init__(self, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._now = now
        self._status: Status | None = None
        self._display: Bar | Lines | None = None

    def run_started(self, event: RunStarted) -> None:
        """Open a display; one that an earlier run has left open is closed."""
        self._close(finished=False)
        stream = self._stream or sys.stderr
        self._status = Status(event, self._now())
        with self._taken_down_on_error():
            if _is_live_terminal(stream):
                self._display = Bar(self._status, stream, self._now)
                # A process that ends without a last event must not leave the cursor hidden.
                atexit.register(self._close, finished=False)
            else:
                self._display = Lines(self._status, stream)

    def trial_started(self, event: TrialStarted) -> None:
        """Count a trial as under way."""
        self._move_on(lambda status, now: status.trial_started(event, now))

    def epoch_finished(self, event: EpochFinished) -> None:
        """Count an epoch."""
        self._move_on(lambda status, now: status.epoch_finished(event, now))

    def trial_finished(self, event: TrialFinished) -> None:
        """Count a trial."""
        self._move_on(lambda status, now: status.trial_finished(event, now))

    def trial_failed(self, event: TrialFailed) -> None:
        """Count an attempt that was lost."""
        self._move_on(lambda status, now: status.trial_failed(event, now))

    def run_finished(self, event: RunFinished) -> None:
        """Close the display at its end."""
        if self._status:
            self._status.finish()
        self._close(finished=True)

    def run_failed(self, event: RunFailed) -> None:
        """Close the display where it stands."""
        self._close(finished=False)

    def _move_on(self, count: Callable[[Status, float], None]) -> None:
        if self._status and self._display:
            with self._taken_down_on_error():
                now = self._now()
                count(self._status, now)
                self._display.show(now)

    def _close(self, *, finished: bool) -> None:
        display, self._display, self._status = self._display, None, None
        atexit.unregister(self._close)
        if display:
            display.close(self._now(), finished=finished)

    @contextmanager
    def _taken_down_on_error(self) -> Iterator[None]:
        """Close the display before an error leaves: after one, the host sends no further events."""
        try:
            yield
        except BaseException:
            self._close(finished=False)
            raise


def _is_live_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"
