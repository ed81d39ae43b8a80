"""The leaderboard's table in a real browser, headless Chromium; skipped where there is none."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import attrs
import chromium
import pytest
from made_up_entries import CONTROLS, entries, entry
from scipy.stats import t

from ddrank_core.engine import score
from ddrank_core.leaderboard.rank import By, sample, tables
from ddrank_core.leaderboard.significance import Sample, p_values
from ddrank_core.leaderboard.site.build import build
from ddrank_core.leaderboard.site.markup import embedded
from ddrank_core.leaderboard.types import Entry, Variant

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[chromium.Page]:
    with chromium.browser(tmp_path_factory.mktemp("profile")) as browser:
        yield chromium.Page(browser)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> list[Entry]:
    folder = tmp_path_factory.mktemp("submission")
    (folder / "run.yaml").write_text("dataset: digits\n")
    return [*entries(60, folder), *awkward(folder)]


def awkward(folder: Path) -> list[Entry]:
    """Return entries that are compared in other ways: without seeds, with fewer repeats, without a score."""
    plain = [entry(number, folder) for number in (100, 105, 110, 115, 120)]
    _, short, _, diverged, no_ars = plain
    cut = {name: values[:3] for name, values in short.measured.arms.items()}
    lost = {**diverged.measured.arms, "syn-any": (None, *diverged.measured.arms["syn-any"][1:])}
    few = {name: v for name, v in no_ars.measured.arms.items() if not name.endswith("aug")}
    changes = (
        {"seeds": ()},
        {"arms": cut, "seeds": (0, 1, 2)},
        {"seeds": (3, 4, 5, 6, 7)},
        {"arms": lost},
        {"arms": few},
    )
    return [
        attrs.evolve(one, measured=attrs.evolve(one.measured, **change))
        for one, change in zip(plain, changes, strict=True)
    ]


@pytest.fixture(scope="module")
def site(made, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build(made, folder)
    return folder


@pytest.fixture
def index(page, site) -> chromium.Page:
    page.problems.clear()
    page.requests.clear()
    page.look()
    page.open(site / "index.html")
    return page


ROWS = "[...document.querySelectorAll('.board:not([hidden]) > table > tbody > tr:not(.detail)')]"


def choose(page: chromium.Page, name: str, value: str) -> None:
    page.run(
        f"(() => {{ const e = document.getElementById({embedded(name)}); e.value = {embedded(value)};"
        "e.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    page.painted()


def column(page: chromium.Page, name: str) -> list[str]:
    return page.run(f"{ROWS}.map((row) => row.querySelector('.{name}').innerText.trim())")


def test_it_loads_without_an_error_and_asks_for_nothing_else(index, site):
    assert [] == index.problems
    assert [(site / "index.html").as_uri()] == index.requests
    # 25 rows of a table are drawn at first, and no board has more here.
    assert 12 * 5 + 5 == len(column(index, "rank"))


# -- the same numbers as Python ------------------------------------------------------------------


@pytest.mark.parametrize("by", ["lrs", "ars"])
@pytest.mark.parametrize("weight", [0.0, 0.37, 0.5, 1.0])
def test_scores_are_those_of_the_engine(index, made, by, weight):
    ask = f"data.rows.map((row) => Scores.{by}(Scores.parts(row.arms), {weight}))"
    shown = dict(zip(index.run("data.rows.map((row) => row.slug + row.track)"), index.run(ask), strict=True))
    for one in made:
        found = shown[one.submission.slug + one.track]
        if found is None:
            assert None in one.measured.arms["syn-any"] or "syn-aug" not in one.measured.arms
        else:
            assert list(sample(one.measured, by, weight).values) == pytest.approx(found, abs=1e-15)


def test_intervals_are_those_of_the_engine(index):
    for values in ([0.1, 0.2], [0.3, 0.31, 0.5], [0.1, 0.4, 0.2, 0.3, 0.25]):
        found = index.run(f"Scores.summary({values}, data.t975)")
        wanted = score.summarise("lrs", values)
        assert (wanted.mean, wanted.ci95) == pytest.approx((found["mean"], found["half"]), rel=1e-12)
    assert {"mean": 0.5, "half": None} == index.run("Scores.summary([0.5], data.t975)")


def test_tails_of_t_are_those_of_scipy(index):
    asked = [(x, df) for x in (0, 0.3, 1, 2.5, 8, 40) for df in (1, 2, 3, 4, 9, 30, 1.5, 2.71, 7.93, 44.4)]
    found = index.run(f"{[list(pair) for pair in asked]}.map(([x, df]) => Scores.twoSided(x, df))")
    # One less a sum that is near one has few digits left: what counts is less than any level to compare with.
    assert [2 * t.sf(x, df) for x, df in asked] == pytest.approx(found, rel=1e-9, abs=1e-12)


def test_p_values_are_those_of_the_ranking(index):
    dice = random.Random(7)
    samples = []
    for seeds in ((), (0, 1, 2), (0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 3, 4, 5, 6), (7,)):
        samples += [
            Sample(values=tuple(round(dice.gauss(m, 0.01), 3) for _ in range(len(seeds) or 4)), seeds=seeds)
            for m in (0.3, 0.31)
        ]
    samples += [
        Sample(values=(0.3,) * 5, seeds=(0, 1, 2, 3, 4)),
        Sample(values=(0.4,) * 5),
        Sample(values=(0.4,) * 5),
    ]
    pairs = [(one, other) for one in samples for other in samples if one is not other]
    shown = [[{"values": s.values, "seeds": list(map(str, s.seeds))} for s in pair] for pair in pairs]
    keyed = "(s) => ({...s, seedKey: s.seeds.join(' ')})"
    ask = f"{embedded(shown)}.map((pair) => Scores.pValue(...pair.map({keyed})))"
    assert p_values(pairs) == pytest.approx(index.run(ask), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("by", ["lrs", "ars"])
@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9])
def test_ranks_ties_and_intervals_are_those_of_the_ranking(index, made, by: By, weight):
    index.run(f"document.querySelector('input[value={by}]').click()")
    choose(index, "track", "")
    choose(index, "w" if by == "lrs" else "g", str(weight))
    index.run("visible().forEach(refresh)")
    shown = index.run(
        "boards.map((board) => [board.of.dataset, board.of.ipc, board.of.track, inOrder(board)"
        ".filter((line) => line.place).map((line) => "
        "[line.row.slug, line.rank, line.tied, line.lowest, line.highest])])"
    )
    wanted = [
        [
            table.key.dataset,
            table.key.ipc,
            table.key.track,
            [[r.entry.submission.slug, r.rank, r.tied, r.lowest, r.highest] for r in table.rows],
        ]
        for table in tables(made, by, weight)
    ]
    assert sorted(wanted) == sorted(shown)
    assert any(row[2] for board in wanted for row in board[3])
    assert any(not row[2] for board in wanted for row in board[3])


# -- sorting, filtering, sliding, opening --------------------------------------------------------


def test_a_click_on_a_heading_sorts_and_says_so(index):
    choose(index, "dataset", "digits")
    choose(index, "ipc", "1")
    before = column(index, "method")
    index.run("document.querySelector('.board:not([hidden]) [data-sort=method]').click()")
    names = [row.splitlines()[0].lower() for row in column(index, "method")]
    assert sorted(names) == names
    assert "ascending" == index.run("document.querySelector('.board:not([hidden]) th.method').ariaSort")
    index.run("document.querySelector('.board:not([hidden]) [data-sort=lrs]').click()")
    scores = [float(cell.split()[0]) for cell in column(index, "lrs") if cell != "–"]
    assert sorted(scores, reverse=True) == scores
    assert "descending" == index.run("document.querySelector('.board:not([hidden]) th.lrs').ariaSort")
    index.run("document.querySelector('.board:not([hidden]) [data-sort=rank]').click()")
    assert before == column(index, "method")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "digits"),
        ("ipc", "10"),
        ("labels", "soft"),
        ("track", "fixed"),
        ("student", "convnet depth 3"),
    ],
)
def test_a_filter_leaves_what_it_names(index, made, name, value):
    choose(index, "track", "")
    choose(index, name, value)
    of = {
        "dataset": lambda e: e.submission.dataset,
        "ipc": lambda e: str(e.submission.ipc),
        "labels": lambda e: e.labels,
        "track": lambda e: e.track,
        "student": lambda e: e.student,
    }[name]
    wanted = sum(of(one) == value for one in made)
    assert f"{wanted} of {len(made)} rows" in index.run("document.getElementById('status').textContent")
    assert wanted == len(column(index, "rank"))


def test_a_slider_ranks_anew_at_once(index, made):
    choose(index, "dataset", "cifar10")
    choose(index, "ipc", "10")
    before = column(index, "lrs")
    choose(index, "w", "1")
    (table,) = (
        table
        for table in tables(made, "lrs", 1.0)
        if (table.key.dataset, table.key.ipc, table.key.track) == ("cifar10", 10, "own")
    )
    assert [f"{row.mean:.3f}" for row in table.rows] == [cell.split()[0] for cell in column(index, "lrs")]
    assert before != column(index, "lrs")
    assert "1.00" == index.run("document.getElementById('w-value').textContent")
    index.wait("document.getElementById('status').textContent.includes('w = 1.00')")


def test_reset_brings_back_the_first_view(index):
    before = column(index, "method"), column(index, "lrs")
    choose(index, "w", "0.9")
    choose(index, "dataset", "digits")
    index.run("document.querySelector('[type=reset]').click()")
    index.wait("document.getElementById('status').textContent.includes('w = 0.50')")
    index.painted()
    assert before == (column(index, "method"), column(index, "lrs"))


def test_a_row_opens_and_shows_what_it_beats(index):
    index.run("document.querySelector('.toggle').click()")
    assert "true" == index.run("document.querySelector('.toggle').ariaExpanded")
    shown = index.run(
        "[...document.querySelectorAll('.against tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    assert [*CONTROLS] == [row[0] for row in shown[1:]]
    # The made-up methods lie far above noise.
    assert "yes" == shown[1][3]
    index.run("document.querySelector('.toggle').click()")
    assert 0 == index.run("document.querySelectorAll('.detail').length")


def test_hostile_names_are_shown_as_they_are_written(page, tmp_path):
    words = "<img src=x onerror=alert(1)></script>\u2028"
    (tmp_path / "run.yaml").write_text(words)
    one = entry(1, tmp_path)
    about = attrs.evolve(one.submission, method=words, dataset=words, teacher=words)
    build([attrs.evolve(one, submission=about, labels=words, student=words)], tmp_path / "site")
    page.problems.clear()
    page.open(tmp_path / "site/index.html")
    page.run("document.querySelector('.toggle').click()")
    shown = words.replace("\u2028", "\ufffd")
    assert shown == page.run("document.querySelector('tbody th a').textContent")
    assert 0 == page.run("document.querySelectorAll('main img').length")
    page.open(tmp_path / "site/submissions/method-001/cifar10-ipc10.html")
    assert shown == page.run("document.querySelector('h1').textContent")
    assert ([], 0) == (page.problems, page.run("document.querySelectorAll('main img').length"))


def test_variants_of_a_set_have_tables_of_their_own(page, tmp_path):
    (tmp_path / "run.yaml").write_text("dataset: digits\n")
    own = attrs.evolve(entry(3, tmp_path), augmentation="dsa")
    variants = [
        attrs.evolve(
            entry(number, tmp_path), submission=own.submission, variant=Variant(axis=axis, name=name)
        )
        for number, axis, name in (
            (8, "augmentation", "none"),
            (13, "labels", "hard"),
            (18, "student", "mlp"),
        )
    ]
    variants[2] = attrs.evolve(variants[2], student="mlp")
    made = [own, entry(28, tmp_path), *variants]
    build(made, tmp_path / "site")
    page.open(tmp_path / "site/index.html")
    shown = {}
    for view in ("methods", "augmentation", "labels"):
        choose(page, "view", view)
        shown[view] = page.run("boards.map((board) => board.lines.map((line) => line.name).sort())")
    name, other = own.submission.method, made[1].submission.method
    assert [sorted([name, other]), [name]] == shown["methods"]
    assert [["as submitted: dsa", "none"]] == shown["augmentation"]
    assert [[f"as submitted: {own.labels}", "hard"]] == shown["labels"]
    assert len(tables(made)) == sum(map(len, shown.values()))


# -- for everybody -------------------------------------------------------------------------------


NAME = "({id, className, dataset}) => id || className || dataset.sort || ''"


def test_it_works_with_the_keyboard_alone(index):
    index.press("Tab", 9)
    assert "Skip to the table" == index.run("document.activeElement.textContent")
    assert index.run("document.activeElement.matches(':focus-visible')")
    assert "2px" == index.run("getComputedStyle(document.activeElement).outlineWidth")
    reached = []
    for _ in range(40):
        index.press("Tab", 9)
        reached.append(index.run(f"({NAME})(document.activeElement)"))
        if reached[-1] == "toggle":
            break
    for wanted in ("theme", "dataset", "track", "w", "g", "rank", "lrs", "toggle"):
        assert wanted in reached
    index.press("Enter", 13, "\r")
    assert "true" == index.run("document.activeElement.ariaExpanded")
    index.run("document.getElementById('w').focus()")
    index.press("ArrowRight", 39)
    index.painted()
    assert "0.51" == index.run("document.getElementById('w-value').textContent")


def test_every_control_has_a_name_and_every_table_a_caption_and_headings(index):
    index.run("document.querySelector('.toggle').click()")

    def where(elements: str, condition: str) -> list[str]:
        return index.run(
            f"[...document.querySelectorAll({embedded(elements)})]"
            f".filter((e) => {condition}).map((e) => e.outerHTML)"
        )

    assert [] == where("select, input", "!e.labels.length")
    assert [] == where("button:not([hidden])", "!e.textContent.trim()")
    assert [] == where("table", "!e.caption?.textContent")
    assert [] == where(".board > table > tbody > tr:not(.detail)", "!e.querySelector('th[scope=row]')")
    assert [] == where("thead th", "e.scope !== 'col'")
    assert "polite" == index.run("document.getElementById('status').ariaLive")


COLOURS = """(e) => {
    const ink = getComputedStyle(e).color;
    while (getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = e.parentElement;
    return [ink, getComputedStyle(e).backgroundColor];
}"""
"""An element's ink, and the paper that it stands on."""


def brightness(colour: str) -> float:
    """Return the relative luminance of a colour as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    "what", ["h1", ".lead", "tbody a", ".error", ".tags", ".badge.warning", ".badge.info"]
)
def test_text_has_contrast_in_light_and_dark(index, dark, what):
    index.look(dark=dark)
    found = index.run(f"({COLOURS})(document.querySelector({embedded(what)}))")
    ink, paper = map(brightness, found)
    assert (ink > paper) == dark
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5


def test_the_button_turns_the_theme_around(index):
    paper = "getComputedStyle(document.body).backgroundColor"
    light = index.run(paper)
    index.run("document.getElementById('theme').click()")
    dark = index.run(paper)
    assert brightness(light) > 0.9
    assert brightness(dark) < 0.1
    assert "true" == index.run("document.getElementById('theme').ariaPressed")
    index.run("document.getElementById('theme').click()")
    assert light == index.run(paper)
    index.run("localStorage.clear()")


def test_a_phone_shows_it_without_scrolling_sideways(index, site):
    index.look(375, 812, phone=True)
    index.run("document.querySelector('.toggle').click()")
    assert 375 == index.run("document.documentElement.scrollWidth")
    shown = index.run(
        "[...document.querySelector('.board thead').querySelectorAll('th')]"
        ".filter((e) => e.offsetWidth).map((e) => e.className)"
    )
    assert ["rank", "method", "lrs"] == shown
    wide = "e.getBoundingClientRect().right > 376 && !e.closest('.scroll, pre, .canvas, .unseen')"
    assert 0 == index.run(f"[...document.querySelectorAll('main *')].filter((e) => {wide}).length")
    index.open(next((site / "submissions").glob("*/*.html")))
    assert 375 == index.run("document.documentElement.scrollWidth")


def test_it_prints_on_white(index):
    index.look(dark=True)
    index.call("Emulation.setEmulatedMedia", media="print")
    index.painted()
    assert brightness(index.run("getComputedStyle(document.body).backgroundColor")) > 0.9
    assert "none" == index.run("getComputedStyle(document.querySelector('#controls fieldset')).display")


# -- the page of a submission --------------------------------------------------------------------


def test_a_submissions_page_has_its_style_and_copies_its_command(page, site, made):
    one = made[0]
    page.problems.clear()
    page.requests.clear()
    page.look()
    page.open(site / f"submissions/{one.submission.slug}.html")
    assert [] == page.problems
    assert all(address.startswith("file:") for address in page.requests)
    # The shared style sheet is there: without it the page is as wide as the window.
    assert 1000 == page.run("document.body.offsetWidth")
    page.run("document.querySelector('.copy').click()")
    page.wait("document.querySelector('.copy').textContent !== 'Copy'")
    assert page.run("document.querySelector('.copy').textContent") in ("Copied", "Selected")
    assert one.command == page.run(
        "document.querySelector('.copy').parentElement.querySelector('code').textContent"
    )


def test_the_index_leads_to_it_and_back(index, site):
    index.follow("tbody th a")
    assert index.run("Boolean(document.querySelector('.facts'))")
    index.follow(".site a")
    assert (site / "index.html").as_uri() == index.run("location.href")
