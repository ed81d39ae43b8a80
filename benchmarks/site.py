"""Time the leaderboard's site with many made-up submissions: building, first paint, and a slider's step.

    python benchmarks/site.py [SUBMISSIONS] [--output results/DEVICE/site.json]

Needs Chromium. A step is the time from the slider's event until the frame after it is handed over for
display: as the page opens, with one track of every submission; with both tracks; with every row of every
table drawn; and with all submissions of a track in one table, 25 rows and then all rows drawn, at its top,
in its middle, and with the panel of its stability open. Beside it stand the processor time that the page's
main thread takes for a step, which other work on the machine stretches less, and the script's time when the
slider rests and the rows that are not in the window follow.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import chromium
import common
from made_up_entries import entries

from ddrank_core.leaderboard.site.build import build
from ddrank_core.leaderboard.types import Entry

STEP = """(async () => {
    const [slider, taken] = [document.getElementById('w'), []];
    for (let step = 0; step < 60; step++) {
        slider.value = String(0.2 + step / 100);
        const start = performance.now();
        slider.dispatchEvent(new Event('input', {bubbles: true}));
        await new Promise((done) => requestAnimationFrame(() => {
            const { port1, port2 } = new MessageChannel();
            port1.onmessage = done;
            port2.postMessage(0);
        }));
        taken.push(performance.now() - start);
    }
    return taken;
})()"""
ALL_TRACKS = """(() => {
    document.getElementById('track').value = '';
    document.getElementById('track').dispatchEvent(new Event('input', {bubbles: true}));
})()"""
ALL_ROWS = "document.querySelectorAll('.more:not([hidden])').forEach((button) => button.click())"
MIDDLE = "document.querySelectorAll('.board > table > tbody > tr')[250].scrollIntoView()"
STABILITY = """(() => {
    document.querySelector('.stability').open = true;
    document.querySelector('.board').scrollIntoView();
})()"""
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submissions", nargs="?", type=int, default=500)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    found: dict[str, Any] = {"machine": common.machine(), "submissions": chosen.submissions}
    with tempfile.TemporaryDirectory() as name, chromium.browser(Path(name, "profile")) as browser:
        page = chromium.Page(browser)
        page.call("Performance.enable", timeDomain="threadTicks")
        found["chromium"] = browser.call("Browser.getVersion")["product"]
        found |= measure(chosen.submissions, Path(name), page)
    if chosen.output:
        common.write_json(chosen.output, found)


def measure(count: int, folder: Path, page: chromium.Page) -> dict[str, Any]:
    (folder / "run.yaml").write_text("dataset: digits\n" * 60)
    made = entries(count, folder)
    start = time.perf_counter()
    built = build(made, folder / "site")
    found: dict[str, Any] = {"build_s": round(time.perf_counter() - start, 2)}
    print(f"built: {built.submissions} submissions, {built.rows} rows in {found['build_s']} s")
    written = [path for path in (folder / "site").rglob("*") if path.is_file()]
    found["gzipped_mb"] = round(sum(len(gzip.compress(path.read_bytes())) for path in written) / 1e6, 2)
    print(f"gzipped: {found['gzipped_mb']} MB")
    page.look()
    paints = [first_paint(page, folder / "site/index.html") for _ in range(9)]
    found["first_paint_ms"], found["table_ready_ms"] = (spread(of) for of in zip(*paints, strict=True))
    print(f"first paint: {found['first_paint_ms']}\ntable ready: {found['table_ready_ms']}")
    build([in_one_table(entry) for entry in made], folder / "one")
    found["steps"] = {}
    for site, steps in (
        ("site", {"one track": "", "both tracks": ALL_TRACKS, "every row drawn": ALL_ROWS}),
        (
            "one",
            {
                f"one table of {count}": "",
                f"one table of {count}, all rows drawn": ALL_ROWS,
                "the same, in its middle": MIDDLE,
                "the same, stability open": STABILITY,
            },
        ),
    ):
        page.open(folder / site / "index.html")
        for name, change in steps.items():
            found["steps"][name] = step(page, change)
            print(f"step, {name}: {found['steps'][name]}")
    return found


def step(page: chromium.Page, change: str) -> dict[str, float]:
    """Return what a slider's step takes after a change of the page, over some rounds of 60 steps."""
    if change:
        page.run(change)
    page.run(STEP)  # warm-up
    before, taken = task_seconds(page), []
    for _ in range(ROUNDS):
        taken += page.run(STEP)
    thread = (task_seconds(page) - before) / len(taken)
    page.run("performance.clearMeasures('rest')")
    page.wait("performance.getEntriesByName('rest').length")
    rest = page.run("performance.getEntriesByName('rest')[0].duration")
    return spread(taken) | {"main_thread_ms": round(1000 * thread, 1), "at_rest_ms": round(rest, 1)}


def task_seconds(page: chromium.Page) -> float:
    """Return the processor time that the main thread has taken so far."""
    metrics = page.call("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def first_paint(page: chromium.Page, path: Path) -> tuple[float, float]:
    page.open(path)
    paint = page.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return paint, page.run("performance.getEntriesByName('ready')[0].startTime")


def in_one_table(entry: Entry) -> Entry:
    """Return the entry as if all were of one data set and IPC."""
    return attrs.evolve(entry, submission=attrs.evolve(entry.submission, dataset="digits", ipc=1))


def spread(taken: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(taken, n=20)
    return {"median": round(statistics.median(taken), 1), "p95": round(cuts[-1], 1), "n": len(taken)}


if __name__ == "__main__":
    main()
