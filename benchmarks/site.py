"""Time the leaderboard's site with many made-up submissions: building, first paint, and a slider's step.

    python benchmarks/site.py [SUBMISSIONS]

Needs Chromium. A step is the time from the slider's event until the frame after it is handed over for
display: as the page opens, with one track of every submission; with both tracks; with every row of every
table drawn; and with all submissions in one table.
"""

from __future__ import annotations

import gzip
import statistics
import sys
import tempfile
import time
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import chromium
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


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name, chromium.browser(Path(name, "profile")) as browser:
        folder = Path(name)
        (folder / "run.yaml").write_text("dataset: digits\n" * 60)
        made = entries(count, folder)
        start = time.perf_counter()
        built = build(made, folder / "site")
        seconds = time.perf_counter() - start
        print(f"built: {built.submissions} submissions, {built.rows} rows in {seconds:.1f} s")
        written = [path for path in (folder / "site").rglob("*") if path.is_file()]
        sizes = [len(gzip.compress(path.read_bytes())) for path in written]
        print(f"gzipped: {sum(sizes) / 1e6:.2f} MB")
        page = chromium.Page(browser)
        page.look()
        paints = [first_paint(page, folder / "site/index.html") for _ in range(9)]
        print(f"first paint: {shown([paint for paint, _ in paints])}")
        print(f"table ready: {shown([ready for _, ready in paints])}")
        print(f"step, one track: {shown(page.run(STEP))}")
        page.run(ALL_TRACKS)
        print(f"step, both tracks: {shown(page.run(STEP))}")
        page.run(ALL_ROWS)
        print(f"step, every row drawn: {shown(page.run(STEP))}")
        build([in_one_table(entry) for entry in made], folder / "one")
        page.open(folder / "one/index.html")
        print(f"step, one table of {count}: {shown(page.run(STEP))}")


def first_paint(page: chromium.Page, path: Path) -> tuple[float, float]:
    page.open(path)
    paint = page.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return paint, page.run("performance.getEntriesByName('ready')[0].startTime")


def in_one_table(entry: Entry) -> Entry:
    """Return the entry as if all were of one data set and IPC."""
    return attrs.evolve(entry, submission=attrs.evolve(entry.submission, dataset="digits", ipc=1))


def shown(taken: list[float]) -> str:
    low, *_, high = statistics.quantiles(taken, n=10)
    middle = statistics.median(taken)
    return f"median {middle:.0f} ms, 10 % to 90 % {low:.0f} to {high:.0f} ms (n = {len(taken)})"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
