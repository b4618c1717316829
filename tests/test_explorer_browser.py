"""The explorer in a real Chromium, wide and as a phone: paths of clicks, without an error on its console."""

# ruff: noqa: E402

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

for _package in ("starlette", "jinja2", "plotly", "uvicorn", "playwright"):
    pytest.importorskip(_package)

from playwright.sync_api import Browser, Page, expect

from chromium import MARKS, launched, opened, served
from example_record import full_record
from exploring import EVIL, EVIL_FOLDER, curve_run, hostile, runs_of, several
from sparsebert.explorer.export import export
from sparsebert.explorer.library import Library
from sparsebert.records import write_record

pytestmark = MARKS
# Both kinds of the page and both widths, two of their four pairs.
SCREENS = (("live", 1280), ("on_disk", 390))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return several(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def live(home: Path) -> Iterator[str]:
    with served([home]) as url:
        yield url


@pytest.fixture(scope="module")
def on_disk(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    page, _ = export(Library([home]), tmp_path_factory.mktemp("exported") / "out")
    return page.as_uri()


@pytest.fixture(params=SCREENS, ids=lambda screen: f"{screen[0]}-{screen[1]}")
def screen(request: pytest.FixtureRequest) -> tuple[str, int]:
    """An address, and the width of a window."""
    kind, width = request.param
    return request.getfixturevalue(kind), width


def click_point(page: Page, key: str) -> None:
    """A click with the pointer where the point of a model is drawn."""
    place = page.evaluate(
        """(key) => {
          const chart = document.getElementById("scatter"), box = chart.getBoundingClientRect();
          const size = chart._fullLayout;
          for (const trace of chart.data) {
            const at = (trace.customdata ?? []).indexOf(key);
            if (at < 0) continue;
            const across = size.xaxis.d2p(trace.x[at]) + size._size.l;
            return [box.left + across, box.top + size.yaxis.d2p(trace.y[at]) + size._size.t];
          }
        }""",
        key,
    )
    page.mouse.move(*place)
    page.mouse.click(*place)


def article(page: Page, key: str) -> Any:
    return page.locator(f'#chosen article[data-key="{key}"]')


def test_a_click_on_a_point_shows_the_model_and_a_second_one_beside_it(
    browser: Browser, screen: tuple[str, int]
) -> None:
    url, width = screen
    with opened(browser, url, width) as page:
        page.locator("#scatter").scroll_into_view_if_needed()
        click_point(page, "magnitude/8x")
        expect(article(page, "magnitude/8x")).to_contain_text("8× faster")
        expect(article(page, "magnitude/8x").locator(".of-heads .main-svg").first).to_be_visible()
        assert "model=magnitude%2F8x" in page.url
        expect(page.locator("#marked")).to_contain_text("8x of magnitude: 6.48× (6.35× to 6.61×), 8")
        article(page, "magnitude/8x").get_by_role("button", name="Compare with another model").click()
        page.get_by_text("The same as a table").click()
        page.locator("#listed tr", has_text="obs0").get_by_role("button", name="4x").press("Enter")
        expect(page.locator("#comparison")).to_contain_text("magnitude")
        expect(page.locator("#comparison tbody tr", has_text="Speedup, model").locator("td")).to_have_count(2)
        expect(page.locator("#chosen article")).to_have_count(2)
        page.go_back()
        expect(page.locator("#chosen article")).to_have_count(1)
        page.go_forward()
        again = page.url
        page.get_by_role("button", name="Stop comparing").last.click()
        expect(page.locator("#comparison")).to_have_count(0)
        expect(article(page, "obs0/4x")).to_have_count(1)
    with opened(browser, again, width) as page:
        expect(page.locator("#chosen article")).to_have_count(2)


def test_axes_and_filters_change_what_is_drawn_and_the_link(browser: Browser, screen: tuple[str, int]) -> None:
    url, width = screen
    with opened(browser, url, width) as page:
        if width < 760:
            page.get_by_text("Axes, colours, filters").click()
        words = page.locator("#tradeoff-words")
        expect(words).to_contain_text("16 points")
        page.locator("#controls [name=x]").select_option("encoder_sparsity")
        expect(words).to_contain_text("16 points, 4 of them on the front: Accuracy, % against Sparsity of the encoder")
        page.locator("#controls [name=method]").select_option("compress: obs, search")
        expect(words).to_contain_text("8 points")
        page.locator("#controls [name=seed]").select_option("1")
        expect(words).to_contain_text("4 points")
        page.locator("#controls [name=y]").select_option("change")
        expect(words).to_contain_text("Change from dense")
        page.get_by_role("button", name="Show all again").click()
        expect(words).to_contain_text("16 points")
        page.locator("#controls [name=points]").select_option("medians")
        expect(words).to_contain_text("4 points")
        page.locator("#legend button").first.click()
        assert "points=medians" in page.url and "method=" in page.url


def test_sliders_pick_a_model_or_the_command_that_makes_one(browser: Browser, screen: tuple[str, int]) -> None:
    url, width = screen
    with opened(browser, url, width) as page:
        pick = page.locator("#pick")
        page.get_by_label("At least this fast").fill("3")
        page.get_by_label("Points that may be lost").fill("1.5")
        expect(pick).to_contain_text("4x of")
        expect(pick.locator("pre")).to_contain_text("--speedup 8 --seed 1 --speedup 3")
        page.get_by_label("At least this fast").fill("4")
        expect(pick).to_contain_text("obs1 was asked for 4.00×")
        expect(pick.locator("pre")).to_have_text(
            "sparsebert compress --task sst2 --speedup 2 --speedup 4 --speedup 8 --seed 1"
        )
        page.get_by_label("At least this fast").fill("12")
        expect(pick).to_contain_text("No model shown is 12.0× as fast as dense and loses at most 1.5 points.")
        expect(pick.locator("pre")).to_contain_text("--speedup 12")
        pick.get_by_role("button").first.click()
        expect(page.locator("#chosen article")).to_have_count(1)
        assert "speed=12" in page.url and "lost=1.5" in page.url


def test_a_front_holds_what_nothing_beats_and_a_wish_takes_the_best(browser: Browser, on_disk: str) -> None:
    # Speed, change from dense, runtime.
    drawn = [(1, 0, "a"), (2, -1, "a"), (2, -2, "a"), (3, -3, "a"), (4, -3, "a"), (5, -9, "a"), (9, -4, "b")]
    make = """(drawn) => drawn.map(([x, y, runtime]) => (
      { x: [x], y: [y], runtime, model: { task: "t", dense: x === 1, key: `${x}${y}` } }))"""
    with opened(browser, on_disk) as page:
        fronts = f"front(({make})(drawn), ACROSS[name]).map((line) => line.map((one) => [one.x[0], one.y[0]]))"
        found = page.evaluate(f"([drawn, name]) => {fronts}", [drawn, "speedup"])
        assert found == [[[1, 0], [2, -1], [4, -3], [5, -9]], [[9, -4]]]
        assert page.evaluate(f"([drawn, name]) => {fronts}", [drawn, "tokens"]) == [[[1, 0], [2, -1], [4, -3], [9, -4]]]
        assert page.evaluate(f"([drawn, name]) => {fronts}", [drawn, "latency"]) == [[[1, 0]]]
        picked = f"Object.entries(pick(({make})(drawn), 2, 3)).map(([what, one]) => [what, one?.x[0], one?.y[0]])"
        assert page.evaluate(f"(drawn) => {picked}", drawn) == [
            ["found", 2, -1],
            ["least", 2, -1],
            ["fastest", 4, -3],
            ["nearest", 2, -1],
        ]
        assert page.evaluate(f"(drawn) => {picked.replace('2, 3', '6, 3')}", drawn)[:2] == [
            ["found", None, None],
            ["least", 9, -4],
        ]


def test_the_masks_are_played_picture_by_picture(browser: Browser, screen: tuple[str, int]) -> None:
    url, width = screen
    with opened(browser, url + "#model=sparse%2Fsparse", width) as page:
        figure = page.locator(".of-film")
        said, slider = figure.locator("output"), figure.get_by_label("Picture of the masks")
        expect(said).to_contain_text("Step 6, phase ")
        expect(said).to_contain_text("37.5% pruned; since the picture before 25.0% of the weights went and 12.5% came")
        darkest = "() => Math.max(...document.querySelector('.of-film .chart').data[0].z.flat())"
        slider.press("Home")
        expect(said).to_have_text(re.compile(r"^Step 2, phase \w+: 0.0% pruned$"))
        assert page.evaluate(darkest) == 0
        slider.press("ArrowRight")
        expect(said).to_contain_text("25.0% pruned")
        assert page.evaluate(darkest) == 1
        figure.get_by_role("button", name="Play").click()
        expect(said).to_contain_text("Step 6, ")


def test_the_slider_of_a_training_tells_each_step(browser: Browser, screen: tuple[str, int]) -> None:
    url, width = screen
    with opened(browser, f"{url}#x=encoder_sparsity&model=sparse%2Fsparse", width) as page:
        figure = page.locator(".of-timeline")
        expect(figure.locator("output")).to_have_text("Step 1,000, phase prune: sparsity 71.1%, loss 0.42")
        slider = figure.get_by_label("Logged step")
        slider.press("Home")
        expect(figure.locator("output")).to_contain_text("Step 200, phase warm: loss 0.567")
        slider.press("ArrowRight")
        expect(figure.locator("output")).to_contain_text("Step 400")
        figure.get_by_role("button", name="Play").click()
        expect(figure.locator("output")).to_contain_text("Step 1,000")
        expect(page.locator(".of-zeros")).to_contain_text("80.0%" if width > 760 else "80%")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_network_that_was_pruned_without_retraining_has_its_curves(browser: Browser, tmp_path: Path, width: int):
    curve_run(tmp_path / "runs" / "curve", [0.8, 0.7, 0.4])
    with served([tmp_path / "runs"]) as url, opened(browser, url + "#model=curve%2Fdense", width) as page:
        figure = page.locator(".of-curves")
        expect(figure).to_contain_text("single weights by |w|")
        lines = "() => document.querySelector('.of-curves .chart').data.map((line) => [line.x, line.y])"
        assert page.evaluate(lines) == [[[0, 5, 10], [80, 70, 40]], [[0, 5, 10], [90, 90, 90]]]
        with page.expect_download() as waiting:
            figure.get_by_role("button", name="CSV").click()
        assert len(waiting.value.path().read_text(encoding="utf-8").splitlines()) == 7


def test_charts_are_saved_as_csv_and_png(browser: Browser, screen: tuple[str, int], tmp_path: Path) -> None:
    url, width = screen
    with opened(browser, f"{url}#model=obs0%2F8x", width, accept_downloads=True) as page:

        def saved(place: str, kind: str) -> Path:
            with page.expect_download() as waiting:
                page.locator(f"{place} [data-save={kind}]").click()
            file = tmp_path / waiting.value.suggested_filename
            waiting.value.save_as(file)
            return file

        rows = list(csv.DictReader(saved("#tradeoff", "csv").read_text(encoding="utf-8").splitlines()))
        assert len(rows) == 16 and {row["setting"] for row in rows} == {"1 text × 128 tokens, 2 threads"}
        assert next(row for row in rows if (row["run"], row["model"]) == ("obs0", "8x"))["score"] == "87.27"
        heads = list(csv.DictReader(saved(".of-heads", "csv").read_text(encoding="utf-8").splitlines()))
        assert len(heads) == 72 and sum(int(row["kept"]) for row in heads) == 10
        for place in ("#tradeoff", ".of-neurons"):
            assert saved(place, "png").read_bytes().startswith(b"\x89PNG")


def test_trees_are_drawn_and_the_dark_is_dark(browser: Browser, screen: tuple[str, int]) -> None:
    url, width = screen
    with opened(browser, f"{url}#model=trees%2Ffff-1x10", width, color_scheme="dark") as page:
        expect(page.locator(".of-visits .main-svg").first).to_be_visible()
        paper = page.locator("#scatter .main-svg").first
        expect(paper).to_have_css("background-color", "rgb(23, 29, 38)")
        page.emulate_media(color_scheme="light")
        expect(paper).to_have_css("background-color", "rgb(255, 255, 255)")


def test_everything_can_be_reached_with_the_keyboard(browser: Browser, live: str) -> None:
    with opened(browser, f"{live}#model=obs0%2F4x") as page:
        expect(page.locator(".of-heads .main-svg").first).to_be_visible()
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, select, input, summary, [role=img]")].filter((one) =>
              !(one.textContent.trim() || one.labels?.length || one.ariaLabel || one.getAttribute("aria-labelledby")))
              .map((one) => one.outerHTML)"""
        )
        assert nameless == []
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))
        assert {"x", "task", "seed", "speed", "lost", "PNG", "CSV", "Compare with another model"} <= reached


@pytest.mark.parametrize("width", [width for _, width in SCREENS])
def test_hostile_texts_are_read_letter_by_letter(browser: Browser, tmp_path: Path, width: int) -> None:
    page_file, _ = export(Library([hostile(tmp_path)]), tmp_path / "out")
    with served([tmp_path]) as live:
        place = live if width > 760 else page_file.as_uri()
        with opened(browser, f"{place}#task={quote(EVIL)}", width) as page:
            click_point(page, f"{EVIL_FOLDER}/8x")
            expect(page.locator("#chosen article")).to_contain_text(EVIL)
            expect(page.locator("#scatter .hovertext").first).to_contain_text(EVIL_FOLDER)
            assert page.evaluate("[window.hurt, document.querySelectorAll('img').length]") == [None, 0]


def test_a_new_record_shows_up_by_itself_and_the_choice_stays(browser: Browser, tmp_path: Path) -> None:
    runs_of(tmp_path, one=full_record())
    with served([tmp_path]) as url, opened(browser, f"{url}#model=one%2F4x") as page:
        expect(page.locator("#tradeoff-words")).to_contain_text("4 points")
        write_record(full_record(1), tmp_path / "two")
        expect(page.locator("#tradeoff-words")).to_contain_text("8 points")
        expect(article(page, "one/4x")).to_have_count(1)


def test_a_link_to_a_model_that_is_gone_says_so(browser: Browser, on_disk: str) -> None:
    with opened(browser, f"{on_disk}#model=obs0%2F5x&x=nonsense&setting=none") as page:
        expect(page.locator("#chosen")).to_contain_text("There is no model obs0/5x here.")
        expect(page.locator("#tradeoff-words")).to_contain_text("16 points")
