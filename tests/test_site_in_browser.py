"""The leaderboard's table in a real browser, headless Chromium; skipped where there is none."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache
from pathlib import Path

import attrs
import chromium
import pytest
from made_up_entries import CONTROLS, entries, entry, variants
from ranked_case import entry as ranked_entry
from ranked_case import run_of
from scipy.stats import kendalltau, t

from ddrank_core.engine import score
from ddrank_core.leaderboard.rank import By, Key, Table, agreement, agreements, identity, sample, tables
from ddrank_core.leaderboard.significance import Sample, p_values
from ddrank_core.leaderboard.site.build import build
from ddrank_core.leaderboard.site.markup import embedded
from ddrank_core.leaderboard.types import Claim, Entry, Variant
from ddrank_core.report.arms import ARMS

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def page(browser) -> chromium.Page:
    return chromium.Page(browser)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> list[Entry]:
    folder = tmp_path_factory.mktemp("submission")
    (folder / "run.yaml").write_text("dataset: digits\n")
    first = entries(60, folder)
    # The first table's methods once more, some of them, with another student.
    resnet = Variant(axis="student", name="resnet")
    others = [
        one
        for number in range(0, 40, 5)
        for one in variants(first[2 * number], {number + 1: resnet}, student="resnet depth 18")
    ]
    return [*(tilted(one) for one in first), *awkward(folder), *others]


def tilted(one: Entry) -> Entry:
    """Return an entry whose place hangs on the weights, if it is of one data set: the others are alike."""
    if one.submission.dataset != "digits":
        return one
    more = random.Random(one.submission.slug).uniform(-0.15, 0.15)
    changes = {"syn-any": more, "syn-hard": -more, "syn-aug": more, "syn-naug": -more}
    arms = {
        name: tuple(value + changes.get(name, 0) for value in values)
        for name, values in one.measured.arms.items()
    }
    return attrs.evolve(one, measured=attrs.evolve(one.measured, arms=arms))


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


@pytest.fixture(scope="module")
def untouched(browser, site) -> chromium.Page:
    """Return the table's page for what asks its script and changes nothing."""
    page = chromium.Page(browser)
    page.look()
    page.open(site / "index.html")
    return page


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
    # Of rows out of sight, innerText is empty.
    cell = ".method a" if name == "method" else f".{name}"
    return page.run(f"{ROWS}.map((row) => row.querySelector('{cell}').textContent.trim())")


def test_it_loads_without_an_error_and_asks_for_nothing_else(index, site):
    assert [] == index.problems
    assert [(site / "index.html").as_uri()] == index.requests
    # 25 rows of a table are drawn at first, and no board has more here.
    assert 12 * 5 + 5 + 8 == len(column(index, "rank"))


# -- the same numbers as Python ------------------------------------------------------------------


@pytest.mark.parametrize("by", ["lrs", "ars"])
@pytest.mark.parametrize("weight", [0.0, 0.37, 0.5, 1.0])
def test_scores_are_those_of_the_engine(untouched, made, by, weight):
    ask = f"data.rows.map((row) => Scores.{by}(Scores.parts(row.arms), {weight}))"
    keys = untouched.run("data.rows.map((row) => row.slug + row.track + row.student)")
    shown = dict(zip(keys, untouched.run(ask), strict=True))
    assert len(made) == len(shown)
    for one in made:
        found = shown[one.submission.slug + one.track + one.student]
        if found is None:
            assert None in one.measured.arms["syn-any"] or "syn-aug" not in one.measured.arms
        else:
            assert list(sample(one.measured, by, weight).values) == pytest.approx(found, abs=1e-15)


def test_intervals_are_those_of_the_engine(untouched):
    for values in ([0.1, 0.2], [0.3, 0.31, 0.5], [0.1, 0.4, 0.2, 0.3, 0.25]):
        found = untouched.run(f"Scores.summary({values}, data.t975)")
        wanted = score.summarise("lrs", values)
        assert (wanted.mean, wanted.ci95) == pytest.approx((found["mean"], found["half"]), rel=1e-12)
    assert {"mean": 0.5, "half": None} == untouched.run("Scores.summary([0.5], data.t975)")


def test_tails_of_t_are_those_of_scipy(untouched):
    asked = [(x, df) for x in (0, 0.3, 1, 2.5, 8, 40) for df in (1, 2, 3, 4, 9, 30, 1.5, 2.71, 7.93, 44.4)]
    found = untouched.run(f"{[list(pair) for pair in asked]}.map(([x, df]) => Scores.twoSided(x, df))")
    # One less a sum that is near one has few digits left: what counts is less than any level to compare with.
    assert [2 * t.sf(x, df) for x, df in asked] == pytest.approx(found, rel=1e-9, abs=1e-12)


def test_p_values_are_those_of_the_ranking(untouched):
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
    assert p_values(pairs) == pytest.approx(untouched.run(ask), rel=1e-9, abs=1e-12)


def rank_by(page: chromium.Page, by: By, weight: float) -> None:
    page.run(f"document.querySelector('input[value={by}]').click()")
    choose(page, "w" if by == "lrs" else "g", str(weight))
    page.run("visible().forEach((board) => refresh(board))")


KEY = "((of) => [of.dataset, of.ipc, of.track, of.student])"


def key(of: Key) -> list:
    return [of.dataset, of.ipc, of.track, of.student]


def row_of(row) -> list:
    return [row.entry.submission.slug, row.rank, row.tied, row.lowest, row.highest]


@pytest.fixture(scope="module")
def moved(untouched, made):
    """Return a function that ranks anew, and gives what the page shows and Python's tables."""

    ranked = cache(lambda by, weight: tables(made, by, weight))

    def move(by: By, weight: float) -> tuple[chromium.Page, list[Table]]:
        untouched.look()
        choose(untouched, "track", "")
        rank_by(untouched, by, weight)
        return untouched, ranked(by, weight)

    yield move
    untouched.run("document.querySelector('[type=reset]').click()")


def random_table(dice: random.Random) -> list[Entry]:
    """Return entries of coarse accuracies, some with the repeats of another in another order."""
    tests, usual = dice.choice([4, 10, 360]), dice.randrange(1, 8)
    found: list[Entry] = []
    for name in dice.sample(("Z", "a", "B", "b9", "b-9", "b.9", "_", "0"), dice.randrange(2, 8)):
        repeats = dice.choice([usual, usual, dice.randrange(1, 8)])
        level = {arm: dice.randrange(tests // 4, tests // 2) for arm in ARMS}
        spread = max(2, tests // 30)
        arms = {arm: [(level[arm] + dice.randrange(spread)) / tests for _ in range(repeats)] for arm in ARMS}
        seeds = dice.choice([(), tuple(range(repeats)), tuple(dice.sample(range(repeats + 1), repeats))])
        if found and dice.random() < 0.5:
            other = dice.choice(found).measured
            order = dice.sample(range(len(other.arms["syn-any"])), len(other.arms["syn-any"]))
            # As much more in both arms of a difference leaves it as it is, but for a rounding error.
            more = dice.choice([0, 1])
            arms = {
                arm: [round(other.arms[arm][at] * tests + more) / tests for at in order] for arm in other.arms
            }
            seeds = dice.choice([other.seeds, tuple(other.seeds[at] for at in order if other.seeds)])
        found.append(attrs.evolve(ranked_entry(name, lrs=[(0, 0)]), measured=run_of(arms, seeds)))
    return found


@pytest.mark.parametrize(("by", "weight"), [("lrs", 0.0), ("lrs", 0.37), ("ars", 0.5)])
def test_random_tables_are_ranked_as_in_python_equal_means_in_the_order_of_their_names(
    untouched, by: By, weight
):
    dice = random.Random(weight)
    cases = [random_table(dice) for _ in range(150)]
    asked = [
        [
            {"id": identity(one), "arms": one.measured.arms, "seeds": list(map(str, one.measured.seeds))}
            for one in case
        ]
        for case in cases
    ]
    shown = untouched.run(
        f"{embedded(asked)}.map((table) => Scores.rank(table.map(({{id, arms, seeds}}) => {{"
        f"const values = Scores.{by}(Scores.parts(arms), {weight});"
        "const {mean} = Scores.summary(values, data.t975);"
        "return {id, values, mean, seeds, seedKey: seeds.join(' ')};"
        "})).map(({sample, rank, tied, lowest, highest}) => [sample.id, rank, tied, lowest, highest]))"
    )
    wanted = []
    for case in cases:
        (table,) = tables(case, by, weight)
        wanted.append([row_of(row) for row in table.rows])
    assert wanted == shown
    # Equal means, and differences that a test finds, are among them.
    assert any(row[1] > 1 for rows in wanted for row in rows)


def test_an_arm_that_a_control_lacks_is_not_the_methods(page, tmp_path):
    (tmp_path / "run.yaml").write_text("dataset: digits\n")
    made = entry(1, tmp_path)
    noise = made.controls["noise"]
    lacking = {name: values for name, values in noise.arms.items() if name not in ("syn-any", "syn-aug")}
    controls = {"noise": attrs.evolve(noise, arms=lacking), "random": made.controls["random"]}
    build([attrs.evolve(made, controls=controls)], tmp_path / "site")
    page.look()
    page.open(tmp_path / "site/index.html")
    arms = page.run("rows[0].controls.map(([name, run]) => [name, run.parts.ior, run.accuracy.mean])")
    assert ["noise", None, None] == arms[0]
    other = sample(controls["random"], "lrs", 1.0).values
    assert len(other) == len(arms[1][1])
    page.run("document.querySelector('.toggle').click()")
    cells = page.run(
        "[...document.querySelectorAll('.against tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert ["noise", "–", "–", "–"] == cells[1]


def test_the_first_claim_counts_and_a_lost_repeat_leaves_no_accuracy(page, tmp_path):
    (tmp_path / "run.yaml").write_text("dataset: digits\n")
    claims = tuple(Claim(accuracy=accuracy, source="table 2") for accuracy in (0.61, 0.72))
    made = entry(1, tmp_path, claimed=claims)
    lost = {**made.measured.arms, "syn-any": (None, *made.measured.arms["syn-any"][1:])}
    build([attrs.evolve(made, measured=attrs.evolve(made.measured, arms=lost))], tmp_path / "site")
    page.look()
    page.open(tmp_path / "site/index.html")
    assert ["61.0"] == column(page, "claimed")
    assert [["–"], ["–"]] == [column(page, "measured"), column(page, "density")]


def test_a_name_that_stands_twice_is_followed_by_its_folder(page, tmp_path):
    (tmp_path / "run.yaml").write_text("dataset: digits\n")
    made = [
        entry(number, tmp_path, slug=f"m{number}/digits-ipc1", dataset="digits", ipc=1, method=method)
        for number, method in ((1, "Matching"), (2, "Matching"), (3, "Other"))
    ]
    build(made, tmp_path / "site")
    page.look()
    page.open(tmp_path / "site/index.html")
    names = {cell.splitlines()[0] for cell in column(page, "method")}
    assert {"Matching (m1)", "Matching (m2)", "Other"} == names


WEIGHTS = pytest.mark.parametrize(("by", "weight"), [(b, w) for b in ("lrs", "ars") for w in (0.0, 0.5, 0.9)])


@WEIGHTS
def test_ranks_ties_and_intervals_are_those_of_the_ranking(moved, by: By, weight):
    page, found = moved(by, weight)
    shown = page.run(
        f"boards.map((board) => [{KEY}(board.of), inOrder(board).filter((line) => line.place)"
        ".map((line) => [line.row.slug, line.rank, line.tied, line.lowest, line.highest])])"
    )
    wanted = [[key(table.key), [row_of(row) for row in table.rows]] for table in found]
    assert sorted(wanted) == sorted(shown)
    assert {True, False} == {row[2] for _, rows in wanted for row in rows}


# -- how stable the order is ---------------------------------------------------------------------


def test_tau_is_that_of_scipy(untouched):
    dice = random.Random(3)
    lists = [
        tuple([dice.randrange(most) for _ in range(n)] for _ in range(2))
        for n in (2, 3, 7, 40, 101)
        for most in (2, 5, 1000)
    ]
    found = untouched.run(f"{[list(pair) for pair in lists]}.map((pair) => Order.tau(...pair))")
    for (one, other), tau in zip(lists, found, strict=True):
        if len(set(one)) == 1 or len(set(other)) == 1:
            assert tau is None
        else:
            assert kendalltau(one, other).statistic == pytest.approx(tau, abs=1e-12)
    assert [None, None, 1.0] == untouched.run(
        "[[[], []], [[1], [2]], [[1, 2], [3, 4]]].map((p) => Order.tau(...p))"
    )


@WEIGHTS
def test_taus_reigns_and_agreements_are_those_of_the_ranking(moved, by: By, weight):
    page, found = moved(by, weight)
    shown = {
        tuple(of): (taus, reigns, sorted(agreed))
        for of, taus, reigns, agreed in page.run(
            "boards.map((board) => [board, Stability.found(board)]).map(([board, found]) => "
            f"[{KEY}(board.of), found.taus, "
            "found.reigns.map(({start, end, line}) => [start, end, line.id]),"
            f"found.agreements.map(({{other, common, tau}}) => [{KEY}(other.of), common, tau])])"
        )
    }
    assert len(shown) == len(found)
    pairs = agreements(found)
    for table in found:
        taus, reigns, agreed = shown[tuple(key(table.key))]
        assert [list(one) for one in table.stability.taus] == [pytest.approx(one, abs=1e-12) for one in taus]
        assert [one.slug for one in table.stability.reigns] == [slug for *_, slug in reigns]
        ends = [(one.start, one.end) for one in table.stability.reigns]
        assert ends == [pytest.approx((start, end), abs=1e-8) for start, end, _ in reigns]
        wanted = [
            [key(other), one.common, one.tau]
            for one in pairs
            for here, other in ((one.one, one.other), (one.other, one.one))
            if here == table.key
        ]
        assert [(of, common) for of, common, _ in sorted(wanted)] == [
            (of, common) for of, common, _ in agreed
        ]
        assert [tau for *_, tau in sorted(wanted)] == pytest.approx([tau for *_, tau in agreed], abs=1e-12)
    # The made-up orders are no trivial ones.
    assert any(len(table.stability.reigns) > 1 for table in found)
    assert any(one.one.student != one.other.student and one.common > 2 for one in pairs)


def test_agreement_is_over_the_methods_that_a_filter_leaves(index, made):
    choose(index, "dataset", "digits")
    choose(index, "ipc", "1")
    choose(index, "labels", "soft")
    of = [one for one in made if (one.submission.dataset, one.submission.ipc) == ("digits", 1)]
    (own,) = tables([one for one in of if one.track == "own" and one.labels == "soft"])
    (fixed,) = tables([one for one in of if one.track == "fixed"])
    wanted = agreement(own, fixed)
    found = index.run("Stability.found(visible()[0]).agreements.map(({tau, common}) => [tau, common])")
    assert [[pytest.approx(wanted.tau), wanted.common]] == found
    assert f"τ {wanted.tau:.2f} with fixed recipe".replace("-", "−") in index.run(
        "visible()[0].stability.summary.textContent"
    )


def test_stability_is_drawn_and_told_and_follows_the_slider(index, made):
    choose(index, "dataset", "cifar10")
    choose(index, "ipc", "1")
    choose(index, "student", "convnet depth 3")
    index.run("document.querySelector('.board:not([hidden]) .stability summary').focus()")
    index.press("Enter", 13, "\r")
    index.wait("document.querySelector('.board:not([hidden]) .stable svg')")
    board = "document.querySelector('.board:not([hidden])')"
    choose(index, "w", "0.9")
    wanted = ["cifar10", 1, "own", "convnet depth 3"]
    (table,) = (found for found in tables(made, "lrs", 0.9) if key(found.key) == wanted)
    assert "90.000%" == index.run(f"{board}.querySelector('.here').getAttribute('x1')")
    taus = index.run(f"[...{board}.querySelectorAll('.stable .unseen tbody td')].map((e) => e.textContent)")
    assert [f"{tau:.2f}".replace("-", "−") for _, tau in table.stability.taus] == taus
    names = {identity(one.entry): one.entry.submission.method for one in table.rows}
    spans = index.run(f"[...{board}.querySelectorAll('.stable li')].map((e) => e.textContent)")
    wanted = [f"{names[one.slug]}: w from {one.start:.3g} to {one.end:.3g}" for one in table.stability.reigns]
    assert wanted == spans
    assert len(spans) == index.run(f"{board}.querySelectorAll('.stable rect').length")
    heads = index.run(f"[...{board}.querySelectorAll('.pairs tbody th')].map((e) => e.textContent)")
    assert {"fixed recipe", "resnet depth 18"} <= set(heads)
    assert [] == index.problems


# -- sorting, filtering, sliding, opening --------------------------------------------------------


def test_a_click_on_a_heading_sorts_and_says_so(index):
    choose(index, "dataset", "digits")
    choose(index, "ipc", "1")
    before = column(index, "method")
    index.run("document.querySelector('.board:not([hidden]) [data-sort=method]').click()")
    names = [name.lower() for name in column(index, "method")]
    assert sorted(names) == names
    assert "ascending" == index.run("document.querySelector('.board:not([hidden]) th.method').ariaSort")
    index.run("document.querySelector('.board:not([hidden]) [data-sort=lrs]').click()")
    scores = [float(cell.split()[0]) for cell in column(index, "lrs") if cell != "–"]
    assert sorted(scores, reverse=True) == scores
    assert "descending" == index.run("document.querySelector('.board:not([hidden]) th.lrs').ariaSort")
    index.run("document.querySelector('.board:not([hidden]) [data-sort=rank]').click()")
    assert before == column(index, "method")


FILTERS = {
    "dataset": ("digits", lambda e: e.submission.dataset),
    "ipc": ("10", lambda e: str(e.submission.ipc)),
    "labels": ("soft", lambda e: e.labels),
    "track": ("fixed", lambda e: e.track),
    "student": ("convnet depth 3", lambda e: e.student),
}


def test_a_filter_leaves_what_it_names(index, made):
    choose(index, "track", "")
    for name, (value, of) in FILTERS.items():
        choose(index, name, value)
        wanted = sum(of(one) == value for one in made)
        assert f"{wanted} of {len(made)} rows" in index.run("document.getElementById('status').textContent")
        assert wanted == len(column(index, "rank"))
        choose(index, name, "")


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


def test_a_long_table_follows_where_it_is_seen_and_then_everywhere(page, tmp_path):
    (tmp_path / "run.yaml").write_text("dataset: digits\n")
    about = {"dataset": "digits", "ipc": 1}
    made = [entry(number, tmp_path, slug=f"m{number}/digits-ipc1", **about) for number in range(80)]
    build(made, tmp_path / "site")
    page.look()
    page.open(tmp_path / "site/index.html")
    page.run("document.querySelector('.more').click()")
    page.run(f"{ROWS}[40].scrollIntoView()")
    page.painted()
    # Held for as long as the test looks, so that the slider does not rest.
    page.run("sayAtRest = () => {}")
    choose(page, "w", "1")
    (table,) = tables(made, "lrs", 1.0)
    wanted = [row.entry.submission.method for row in table.rows]
    inside = page.run(
        f"{ROWS}.map((row, at) => [at, row.getBoundingClientRect()])"
        ".filter(([, box]) => box.bottom > 0 && box.top < innerHeight).map(([at]) => at)"
    )
    names = column(page, "method")
    assert len(inside) > 10
    assert [wanted[at] for at in inside] == [names[at] for at in inside]
    assert sorted(wanted) == sorted(names)
    assert wanted != names
    shown = [f"{row.mean:.3f}" for row in table.rows]
    scores = [cell.split()[0] for cell in column(page, "lrs")]
    assert [shown[at] for at in inside] == [scores[at] for at in inside]
    page.run("visible().forEach((board) => refresh(board))")
    assert (wanted, shown) == (
        column(page, "method"),
        [cell.split()[0] for cell in column(page, "lrs")],
    )


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
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
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


@pytest.fixture(scope="module")
def varied(tmp_path_factory) -> tuple[list[Entry], Path]:
    """Return a method with variants, another without, and the site of both."""
    folder = tmp_path_factory.mktemp("varied")
    (folder / "run.yaml").write_text("dataset: digits\n")
    own = attrs.evolve(entry(3, folder), augmentation="dsa")
    axes = {"augmentation": ("none", "mixup", "crop"), "labels": ("hard", "soft")}
    numbers = {8: "augmentation", 13: "augmentation", 18: "augmentation", 23: "labels", 33: "labels"}
    names = {axis: iter(of) for axis, of in axes.items()}
    chosen = {number: Variant(axis=axis, name=next(names[axis])) for number, axis in numbers.items()}
    student = variants(own, {38: Variant(axis="student", name="mlp")}, student="mlp")
    made = [own, entry(28, folder), *variants(own, chosen, augmentation="dsa"), *student]
    # One that nothing tells from the method itself.
    twin = next(one for one in made if one.variant and one.variant.name == "crop")
    made[made.index(twin)] = attrs.evolve(twin, measured=own.measured)
    build(made, folder / "site")
    return made, folder / "site"


def test_variants_of_a_set_have_tables_of_their_own(page, varied):
    made, site = varied
    page.look()
    page.open(site / "index.html")
    shown = {}
    for view in ("methods", "augmentation", "labels"):
        choose(page, "view", view)
        shown[view] = page.run("boards.map((board) => board.lines.map((line) => line.name).sort())")
        assert f"#{view}" == page.run("location.hash")
    name, other = made[0].submission.method, made[1].submission.method
    assert [sorted([name, other]), [name]] == shown["methods"]
    assert [["as submitted: dsa", "crop", "mixup", "none"]] == shown["augmentation"]
    assert [[f"as submitted: {made[0].labels}", "hard", "soft"]] == shown["labels"]
    assert len(tables(made)) == sum(map(len, shown.values()))


def name_of(entry: Entry, axis: str) -> str:
    own = entry.labels if axis == "labels" else entry.augmentation
    return entry.variant.name if entry.variant else f"as submitted: {own}"


def rank_of(row) -> list[str]:
    interval = str(row.lowest) if row.lowest == row.highest else f"{row.lowest}–{row.highest}"
    return [f"{row.rank}{'=' if row.tied else ''}", interval]


@pytest.mark.parametrize("axis", ["augmentation", "labels"])
def test_variants_are_ranked_on_their_sets_page_and_on_the_board_it_leads_to(page, varied, axis):
    made, site = varied
    (table,) = (found for found in tables(made) if found.key.axis == axis)
    wanted = [[*rank_of(row), name_of(row.entry, axis), f"{row.mean:.3f}"] for row in table.rows]
    page.problems.clear()
    page.open(site / f"submissions/{made[0].submission.slug}.html")
    cells = page.run(
        f"[...document.querySelector('a[href$=\"#{axis}\"]').closest('section').querySelectorAll('tbody tr')]"
        ".map((row) => [row.cells[0].firstChild.data, row.querySelector('small').textContent,"
        "row.cells[1].textContent, row.cells[2].firstChild.data,"
        "row.querySelectorAll('svg.interval line').length])"
    )
    assert [row[:3] for row in wanted] == [row[:3] for row in cells]
    assert [f"{row.mean:.4f}" for row in table.rows] == [found.split(" ")[0] for *_, found, _ in cells]
    assert {1} == {bars for *_, bars in cells}
    assert any("=" in rank for rank, *_ in cells)
    page.follow(f'a[href$="#{axis}"]')
    assert axis == page.run("document.getElementById('view').value")
    rows = page.run(
        f"{ROWS}.map((row) => [...row.querySelector('.rank').innerText.split('\\n'),"
        "row.querySelector('.method a').textContent, row.querySelector('.lrs').innerText.split(' ')[0],"
        "row.querySelectorAll('.lrs .interval').length])"
    )
    assert wanted == [row[:4] for row in rows]
    assert {1} == {bars for *_, bars in rows}
    head = page.run("document.querySelector('thead .method').innerText")
    assert {"augmentation": "Augmentation", "labels": "Labels"}[axis] == head
    # What is claimed is claimed for the method's own recipe.
    claims = page.run(f"{ROWS}.filter((r) => r.querySelector('.claimed').textContent !== '–').length")
    assert bool(made[0].submission.claimed) == claims
    assert [] == page.problems


def test_tables_of_variants_are_found_and_read_with_the_keyboard(page, varied):
    made, site = varied
    page.open(site / "index.html")
    page.run("document.querySelectorAll('.toggle').forEach((button) => button.click())")
    links = page.run("[...document.querySelectorAll('.detail a')].map((e) => e.textContent)")
    assert {"Rank on data augmentation", "Rank on label strategy"} <= set(links)
    page.run("[...document.querySelectorAll('.detail a')].find((e) => /label/.test(e.textContent)).focus()")
    page.press("Enter", 13, "\r")
    page.wait("document.getElementById('view').value === 'labels'")
    page.run("document.querySelector('.toggle').focus()")
    page.press("Enter", 13, "\r")
    assert 1 == page.run("document.querySelectorAll('.detail').length")
    page.open(site / f"submissions/{made[0].submission.slug}.html")
    page.run("document.querySelector('.varied').parentElement.focus()")
    assert "Rank on data augmentation" in page.run("document.activeElement.ariaLabel")
    page.run("document.querySelector('details summary').focus()")
    page.press("Enter", 13, "\r")
    assert page.run("document.querySelector('details').open")


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
    index.run("document.querySelector('.stability').open = true")
    index.wait("document.querySelector('.stable svg')")

    def where(elements: str, condition: str) -> list[str]:
        return index.run(
            f"[...document.querySelectorAll({embedded(elements)})]"
            f".filter((e) => {condition}).map((e) => e.outerHTML)"
        )

    assert [] == where("select, input", "!e.labels.length")
    assert [] == where(
        "button:not([hidden])", "!(e.closest('[hidden]') || e.textContent.trim() || e.ariaLabel)"
    )
    assert [] == where("table", "!e.caption?.textContent")
    assert [] == where(".board > table > tbody > tr:not(.detail)", "!e.querySelector('th[scope=row]')")
    assert [] == where("thead th", "e.scope !== 'col'")
    assert "polite" == index.run("document.getElementById('status').ariaLive")


def test_a_screen_reader_is_told_of_all_rows_and_cells_though_they_are_no_tables_boxes(index):
    choose(index, "dataset", "digits")
    choose(index, "ipc", "10")
    index.call("Accessibility.enable")
    told = [node for node in index.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    index.call("Accessibility.disable")
    count = Counter(node["role"]["value"] for node in told)
    rows = len(column(index, "rank"))
    assert rows == 12
    # One heading row, of 11 columns.
    assert (rows + 1, rows, 11, 10 * rows) == tuple(
        count[role] for role in ("row", "rowheader", "columnheader", "cell")
    )


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


INKS = ("h1", ".lead", "tbody a", ".error", ".tags", ".badge.warning", ".badge.info", ".stability summary")


def test_text_has_contrast_in_light_and_dark(index):
    for dark in (False, True):
        index.look(dark=dark)
        for what in INKS:
            found = index.run(f"({COLOURS})(document.querySelector({embedded(what)}))")
            ink, paper = map(brightness, found)
            assert (ink > paper) == dark, what
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, what


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
    index.run("document.querySelector('.stability').open = true")
    index.wait("document.querySelector('.stable svg')")
    assert 375 == index.run("document.documentElement.scrollWidth")
    shown = index.run(
        "[...document.querySelector('.board > table > thead').querySelectorAll('th')]"
        ".filter((e) => e.offsetWidth).map((e) => e.className)"
    )
    assert ["rank", "method", "lrs"] == shown
    wide = (
        "e.getBoundingClientRect().right > 376 && !e.closest('.scroll, pre, .canvas, .unseen, .stable text')"
    )
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
