"""The display for a terminal: a bar with the time left, and under it what is being trained."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from ddrank_progress.status import Status, clock

if TYPE_CHECKING:
    from rich.console import RenderableType

# Four times a second looks alive and leaves the processor to the training.
REFRESHES_PER_SECOND = 4


class Bar:
    """A live bar. It is drawn by a thread of its own, so an event costs no drawing."""

    def __init__(self, status: Status, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.live import Live

        self._status = status
        self._now = now
        self._live = Live(
            console=Console(file=stream, force_terminal=True),
            get_renderable=self._render,
            refresh_per_second=REFRESHES_PER_SECOND,
            # What others write to a piped stdout must not end up on the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start(refresh=True)

    def show(self, now: float) -> None:
        """Do nothing: the thread draws the status as it finds it."""

    def close(self, now: float, *, finished: bool) -> None:
        """Draw the last state and give the terminal back."""
        self._live.stop()

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        status, left = self._status, self._status.seconds_left()
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(max_width=24, no_wrap=True, overflow="ellipsis")
        line.add_column(ratio=1)
        for _ in range(4):
            line.add_column(no_wrap=True)
        line.add_row(
            Text(status.name, style="bold"),
            ProgressBar(total=1.0, completed=status.fraction()),
            Text(f"{100 * status.fraction():3.0f} %"),
            Text(f"trials {status.trials_done}/{status.trials}"),
            Text(clock(status.seconds(self._now())), style="dim"),
            Text("left ?" if left is None else f"left {clock(left)}", style="cyan"),
        )
        below = Text(style="dim", no_wrap=True, overflow="ellipsis")
        # First, as what does not fit is cut off.
        below.append(f"{status.failed} failed" if status.failed else "", style="red")
        for part in (status.training, f"last: {status.last}" if status.last else ""):
            below.append("  |  " if part and below else "").append(part)
        return Group(line, below)
