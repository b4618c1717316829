"""Models asked on the explorer's page in a real Chromium, wide and as a phone: paths of clicks, without an error."""

# ruff: noqa: E402

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

for _package in ("starlette", "jinja2", "plotly", "uvicorn", "playwright"):
    pytest.importorskip(_package)

from playwright.sync_api import Browser, Page, expect

from chromium import MARKS, launched, opened, served
from example_record import full_record
from exploring import EVIL, with_models
from serving import exported
from sparsebert import Predictor
from sparsebert.live import turns
from sparsebert.live.annex import live_annex
from sparsebert.records import write_record
from test_embeddings import save_embedder
from tiny_run import save_tiny

pytestmark = MARKS
WIDTHS = (1280, 390)
CHOSEN = "#model=obs0%2F4x&threads=1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    with_models(folder / "runs")
    save_tiny(folder / "alone", num_hidden_layers=1)
    save_tiny(folder / "broken", num_hidden_layers=1)
    (folder / "broken" / "model.safetensors").write_bytes(b"short")
    save_tiny(folder / "tagger", "tokens")
    exported(folder, "quick")
    save_embedder(folder / "vectors")
    return folder


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    with served(
        [home / "runs"], live_annex([str(home / name) for name in ("broken", "tagger", "quick", "vectors")])
    ) as found:
        yield found


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_S", 0.05)


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    return request.param


def chosen(folder: Path) -> str:
    """A model against itself, in the address."""
    key = quote(f"model: {folder}", safe="")
    return f"#left={key}&right={key}&threads=1"


def ask(page: Page, text: str) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Ask both").click()


def test_two_models_answer_side_by_side(browser: Browser, url: str, home: Path, width: int) -> None:
    with opened(browser, url + CHOSEN, width) as page:
        sides = page.locator("#sides")
        expect(sides.locator("[name=left] option:checked")).to_have_text("dense of obs0")
        expect(sides.locator("[name=right] option:checked")).to_have_text("4x of obs0")
        page.locator("#live").scroll_into_view_if_needed()
        page.get_by_label("An example").select_option(index=1)
        text = "a film that is not without charm"
        expect(page.get_by_label("Text", exact=True)).to_have_value(text)
        sides.locator("[name=right_runtime]").select_option("eager")
        page.get_by_role("button", name="Ask both").click()
        told = page.locator("#answers article")
        expect(told).to_have_count(2)
        for place, name in enumerate(("dense", "4x")):
            answer = Predictor(home / "runs" / "obs0" / name, "eager")(text, top_k=None)
            bars = told.nth(place).locator("li")
            said = {bar.locator("span").first.inner_text(): bar.locator("output").inner_text() for bar in bars.all()}
            assert said == {one["label"]: f"{100 * one['score']:.1f}%" for one in answer}
            expect(told.nth(place).locator(".times")).to_contain_text("ms, n = ")
        expect(page.locator("#answers > .times")).to_contain_text("4x of obs0 is ")
        assert "right_runtime=eager" in page.url
        # A page that is loaded anew keeps the choice and the text.
        page.reload()
        expect(page.get_by_label("Text", exact=True)).to_have_value(text)
        page.locator("#live").scroll_into_view_if_needed()
        expect(sides.locator("[name=right_runtime]")).to_have_value("eager")
        sides.locator("[name=left]").select_option("obs0/4x")
        ask(page, "good")
        expect(page.locator("#answers .verdict")).to_contain_text("Both say ")


def test_words_with_tags_are_marked_in_the_text(browser: Browser, url: str, home: Path, width: int) -> None:
    with opened(browser, url + CHOSEN, width) as page:
        page.locator("#live").scroll_into_view_if_needed()
        for side in ("left", "right"):
            page.locator(f"#sides [name={side}]").select_option(label=str(home / "tagger"))
        ask(page, "good \U0001f642 <b> w1")
        told = page.locator("#answers .tagged")
        expect(told).to_have_count(2)
        (answer,) = Predictor(home / "tagger", "eager")(["good \U0001f642 <b> w1"])
        marks = told.first.locator("mark").all_inner_texts()
        assert marks == [f"{one['text']} {one['label']}" for one in answer["spans"]] and len(marks) > 3
        page.get_by_role("button", name="Which tokens mattered").click()
        expect(page.locator("#inside")).to_contain_text("The model tags words")


def test_tokens_and_attention_on_demand(browser: Browser, url: str, width: int) -> None:
    with opened(browser, url + CHOSEN, width) as page:
        page.get_by_label("Text", exact=True).fill("good w1 bad")
        page.get_by_role("button", name="Which tokens mattered").click()
        tokens = page.locator("#inside .tokens")
        expect(tokens).to_have_count(2)
        assert tokens.first.locator("li").all_inner_texts() == ["[CLS]", "good", "w1", "bad", "[SEP]"]
        assert "good: " in (tokens.first.locator("li").nth(1).get_attribute("aria-label") or "")
        expect(page.locator("#inside .main-svg")).to_have_count(0)
        page.get_by_text("Attention of the 8 heads that are left").click()
        expect(page.locator("#inside .main-svg").first).to_be_visible()
        page.locator("#inside article").last.get_by_label("Layer").select_option("1")
        expect(page.locator("#inside article").last.locator(".ytick", has_text="head 1")).to_be_visible()


def test_a_file_of_ones_own(browser: Browser, url: str, width: int, tmp_path: Path) -> None:
    with opened(browser, url + CHOSEN, width, accept_downloads=True) as page:
        section = page.locator("#own-file")
        compare = section.get_by_role("button", name="Compare their answers")
        compare.click()
        expect(section.locator(".line")).to_have_text("Choose a file first.")
        lines = [f"good w{number} bad w{3 * number}" for number in range(1, 20)]
        content = "id,what\n" + "".join(f"{number},{line}\n" for number, line in enumerate(lines))
        section.get_by_label("File").set_input_files(
            {"name": "m.csv", "mimeType": "text/csv", "buffer": content.encode()}
        )
        section.get_by_label("Columns").fill("text")
        compare.click()
        expect(section.locator(".line")).to_have_text("m.csv has no such column; got text; allowed: id, what.")
        section.get_by_label("Columns").fill("what")
        compare.click()
        expect(section.locator(".verdict")).to_contain_text("of 19 texts")
        with page.expect_download() as waiting:
            section.get_by_role("button", name="CSV").click()
        file = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(file)
        rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
        expect(section.locator("tbody tr")).to_have_count(len(rows))
        assert rows and rows[0]["text"] in lines and file.name == "disagreements-m.csv.csv"
        section.get_by_label("File").set_input_files(
            {"name": "b.txt", "mimeType": "text/plain", "buffer": b"\xff\xfe\x00"}
        )
        compare.click()
        expect(section.locator(".line")).to_contain_text("b.txt cannot be read as text in UTF-8")


def test_the_nearest_texts_of_both_and_which_they_share(browser: Browser, url: str, home: Path, width: int) -> None:
    with opened(browser, url + chosen(home / "vectors"), width) as page:
        near, line = page.get_by_role("button", name="Nearest texts"), page.locator("#live .line")
        near.click()
        expect(line).to_contain_text("The text is empty")
        page.get_by_label("Text", exact=True).fill("good w1")
        near.click()
        found = page.locator("#neighbours")
        expect(found.locator(".verdict")).to_have_text("Of the 5 nearest texts 5 are the same.")
        expect(found.locator("li.shared")).to_have_count(10)
        expect(found.locator(".caption")).to_contain_text("the reviews that come with the package")
        page.locator("#own-file").get_by_label("File").set_input_files(
            {"name": "m.txt", "mimeType": "text/plain", "buffer": f"good w1\n{EVIL}\nbad w2\n".encode()}
        )
        near.click()
        expect(found.locator(".caption")).to_contain_text("Of 2 texts, the texts of m.txt")
        expect(found.locator("li")).to_have_count(4)
        assert page.evaluate("[window.hurt, document.querySelectorAll('img').length]") == [None, 0]
        page.locator("#sides [name=right]").select_option("obs0/4x")
        near.click()
        expect(found.locator(".notice.failed")).to_contain_text("gives no vectors")


def test_a_race_and_a_second_one_that_waits(browser: Browser, url: str, home: Path, width: int) -> None:
    quick = chosen(home / "quick")
    with opened(browser, url + quick, width) as page, opened(browser, url + CHOSEN, width) as other:
        section = page.locator("#race")
        section.get_by_label("Texts").select_option("2000")
        section.get_by_role("button", name="Start the race").click()
        expect(section.locator(".verdict")).to_contain_text("as fast as")
        expect(section.locator(".rate").first).to_contain_text("texts/s")
        expect(section.locator(".lane small").first).to_contain_text("MB of memory")
        expect(section.locator(".caption").last).to_contain_text("turns each; ")
        expect(section.locator(".caption").last).to_contain_text("Energy")
        section = other.locator("#race")
        section.get_by_label("Texts").select_option("2000")
        section.get_by_role("button", name="Start the race").click()
        expect(section.locator(".line")).to_contain_text("…")
        ask(page, "good")
        expect(page.locator("#live .line")).to_contain_text("It waits: a race is at work.")
        section.get_by_role("button", name="Stop").click()
        expect(section.locator(".line")).to_have_text("Stopped.")
        expect(page.locator("#answers article")).to_have_count(2)
        expect(section.get_by_role("button", name="Start the race")).to_be_enabled()


def test_models_that_hold_more_than_the_limit_do_not_fit(browser: Browser, url: str) -> None:
    with opened(browser, url + CHOSEN, WIDTHS[1]) as page:
        section = page.locator("#race")
        section.get_by_label("Memory").select_option("128 MB")
        section.get_by_role("button", name="Start the race").click()
        expect(section.locator(".verdict")).to_contain_text("more than the 128 MB")
        expect(section.locator(".rate").first).to_have_text("does not fit")


def test_bad_input_is_a_line_and_the_page_lives_on(browser: Browser, url: str, width: int) -> None:
    with opened(browser, url + CHOSEN, width) as page:
        line = page.locator("#live .line")
        ask(page, " ")
        expect(line).to_have_text("The text is empty: type one, or pick an example.")
        page.evaluate("document.querySelector('#ask textarea').value = 'a'.repeat(2 ** 20)")
        page.get_by_role("button", name="Ask both").click()
        expect(line).to_have_text("A text has at most 20,000 characters; this one has 1,048,576.")
        page.locator("#sides [name=left]").select_option(index=0)
        ask(page, EVIL)
        expect(page.locator("#answers .notice.failed")).to_contain_text("broken")
        expect(page.locator("#answers article").last.locator("li")).to_have_count(2)
        page.get_by_role("button", name="Which tokens mattered").click()
        expect(page.locator("#inside .tokens")).to_have_count(1)
        assert page.evaluate("[window.hurt, document.querySelectorAll('img').length]") == [None, 0]
        page.locator("#sides [name=left]").select_option("obs0/dense")
        ask(page, "good")
        expect(page.locator("#answers .notice.failed")).to_have_count(0)


def test_models_alone_have_no_trade_off(browser: Browser, home: Path, width: int) -> None:
    annex = live_annex([str(home / "alone"), str(home / "runs" / "obs0" / "dense")])
    with served([], annex) as found, opened(browser, found, width, first="#live", color_scheme="dark") as page:
        expect(page.locator("#tradeoff")).to_be_hidden()
        ask(page, "good")
        expect(page.locator("#answers article")).to_have_count(2)
        expect(page.locator("#answers .verdict")).to_have_count(1)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, select, input, textarea, summary")].filter((one) =>
              !(one.textContent.trim() || one.labels?.length || one.ariaLabel || one.getAttribute("aria-labelledby")))
              .map((one) => one.outerHTML)"""
        )
        assert nameless == []


def test_answers_stay_when_a_new_record_comes(browser: Browser, tmp_path: Path) -> None:
    with_models(tmp_path)
    with served([tmp_path], live_annex([])) as found, opened(browser, found + CHOSEN) as page:
        ask(page, "good")
        expect(page.locator("#answers article")).to_have_count(2)
        write_record(full_record(2), tmp_path / "new")
        expect(page.locator("#news")).to_contain_text("something new")
        expect(page.locator("#answers article")).to_have_count(2)
        page.get_by_role("button", name="Load it").click()
        expect(page.locator("#tradeoff-words")).to_contain_text("20 points")
