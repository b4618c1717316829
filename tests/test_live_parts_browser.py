"""Parts switched off on the explorer's page in a real Chromium, wide and as a phone: clicks, keys, the address."""

# ruff: noqa: E402

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

for _package in ("starlette", "jinja2", "plotly", "uvicorn", "playwright"):
    pytest.importorskip(_package)

from playwright.sync_api import Browser, Page, expect

from chromium import MARKS, launched, opened, served
from sparsebert.live.annex import live_annex
from tiny_run import WORDS, run_cli, save_tiny, write_task

pytestmark = MARKS
WIDTHS = (1280, 390)
SHORT = ("--set", "training.max_steps=6", "--set", "measure.timed=false")
TEXTS = [f"{WORDS[number % 2]} w{number}" for number in range(40)]
MAP = "#parts-map button"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("switched")
    names = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    save_tiny(folder / "start", **names)
    write_task(folder / "data")
    said = run_cli(
        "finetune", folder / "start", "--task", "mine", "--data", folder / "data", "-o", folder / "runs/tuned", *SHORT
    )
    assert said.exit_code == 0, said.output
    return folder


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    with served([home / "runs"], live_annex([str(home / "start")])) as found:
        yield found


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    return request.param


def off(page: Page) -> list[str]:
    pressed = page.locator(f'{MAP}[aria-pressed="true"]')
    return [str(one.get_attribute("aria-label")) for one in pressed.all()]


def test_a_click_switches_a_head_off_and_the_effect_is_measured(
    browser: Browser, url: str, width: int, tmp_path: Path
) -> None:
    with opened(browser, url + "#threads=1", width, accept_downloads=True) as page:
        page.locator("#parts").scroll_into_view_if_needed()
        expect(page.locator(MAP)).to_have_count(3 * (1 + 4 + 1 + 4))
        words, line = page.locator("#parts-words"), page.locator("#parts .line")
        expect(words).to_have_text("Everything is on.")
        page.get_by_role("button", name="Measure the effect").click()
        expect(line).to_have_text("Nothing is switched off: click a head or a feedforward block first.")
        head = page.get_by_role("button", name="Layer 2, head 3", exact=True)
        expect(head).to_have_attribute("aria-pressed", "false")
        head.click()
        expect(head).to_have_attribute("aria-pressed", "true")
        expect(words).to_have_text("Off: head 3 of layer 2.")
        assert "off=2h3" in page.url
        # By the keyboard too; where some heads of a layer are off, all of them are neither on nor off.
        page.get_by_role("button", name="Layer 2, all heads").focus()
        expect(page.get_by_role("button", name="Layer 2, all heads")).to_have_attribute("aria-pressed", "mixed")
        page.keyboard.press("Space")
        expect(words).to_have_text("Off: all heads of layer 2.")
        assert off(page) == ["Layer 2, all heads", *(f"Layer 2, head {number}" for number in (1, 2, 3, 4))]
        page.go_back()
        expect(words).to_have_text("Off: head 3 of layer 2.")
        page.get_by_role("button", name="Layer 1, neurons, quarter 4, smallest weights").click()
        page.get_by_role("button", name="Measure the effect").click()
        verdict = page.locator("#parts .verdict")
        expect(verdict).to_contain_text("without quarter 4 of the neurons of layer 1; head 3 of layer 2: accuracy ")
        expect(verdict).to_contain_text(", n = 40.")
        expect(page.locator("#parts .found .caption")).to_contain_text("On all 40 validation examples of mine, in ")
        # A page that is loaded anew has the same parts off.
        page.reload()
        page.locator("#parts").scroll_into_view_if_needed()
        expect(words).to_have_text("Off: quarter 4 of the neurons of layer 1; head 3 of layer 2.")
        page.get_by_role("button", name="Switch all on").click()
        expect(words).to_have_text("Everything is on.")
        assert off(page) == [] and "off=" not in page.url


def test_a_file_and_what_was_measured_so_far(browser: Browser, url: str, width: int, tmp_path: Path) -> None:
    with opened(browser, url + "#threads=1&of=left&off=1h1.9h1", width, accept_downloads=True) as page:
        section = page.locator("#parts")
        section.scroll_into_view_if_needed()
        expect(section.get_by_label("Model").locator("option:checked")).to_contain_text("First: ")
        words = page.locator("#parts-words")
        expect(words).to_have_text("Off: head 1 of layer 1. This model has none of these: head 1 of layer 9.")
        content = "text;said\n" + "".join(f"{text};{('yes', 'no')[row % 2]}\n" for row, text in enumerate(TEXTS))
        page.locator("#own-file").get_by_label("File").set_input_files(
            {"name": "m.csv", "mimeType": "text/csv", "buffer": content.encode()}
        )
        measure = section.get_by_role("button", name="Measure the effect")
        measure.click()
        expect(section.locator(".verdict")).to_contain_text("agreement with itself 100.0 before, ")
        expect(section.locator(".found .caption")).to_contain_text("On all 40 texts of m.csv, in ")
        section.get_by_label("Column of labels, in the file").fill("gone")
        measure.click()
        expect(section.locator(".line")).to_have_text("m.csv has no such column; got gone; allowed: text, said.")
        section.get_by_label("Column of labels, in the file").fill("said")
        page.get_by_role("button", name="Layer 3, feedforward block").click()
        measure.click()
        expect(section.locator(".verdict")).to_contain_text("head 1 of layer 1; the feedforward block of layer 3: acc")
        expect(section.locator("tbody tr")).to_have_count(2)
        with page.expect_download() as waiting:
            section.get_by_role("button", name="CSV").click()
        file = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(file)
        latest, first = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
        assert (first["metric"], first["off"], first["before"]) == ("agreement", "1h1", "1")
        assert (latest["metric"], latest["off"]) == ("accuracy", "1h1 3n1 3n2 3n3 3n4")
        change = float(latest["after"]) - float(latest["before"])
        assert float(latest["change"]) == pytest.approx(change) and latest["rows"] == "all 40 texts of m.csv"


def test_a_program_has_nothing_to_switch_and_bad_addresses_are_text(browser: Browser, home: Path, width: int) -> None:
    pytest.importorskip("onnxruntime")
    from serving import exported

    folder = home / "programs"
    if not folder.is_dir():
        folder.mkdir()
        exported(folder, "small")
    annex = live_annex([str(folder / "small"), str(home / "start")])
    evil = "#of=left&off=%3Cimg%20src=x%20onerror=window.hurt=1%3E.1h1"
    with served([], annex) as found, opened(browser, found + evil, width, first="#parts", color_scheme="dark") as page:
        page.locator("#parts").scroll_into_view_if_needed()
        page.locator("#sides [name=left]").select_option(label=str(folder / "small"))
        warning = page.locator("#parts .warning")
        expect(warning).to_contain_text("is exported: nothing inside a program can be switched off")
        expect(page.locator(MAP)).to_have_count(0)
        expect(page.get_by_role("button", name="Measure the effect")).to_be_hidden()
        page.locator("#sides [name=left]").select_option(label=str(home / "start"))
        expect(page.locator("#parts-words")).to_contain_text("This model has none of these: <img src=x onerror")
        expect(warning).to_have_text("")
        page.get_by_role("button", name="Measure the effect").click()
        expect(page.locator("#parts .line")).to_contain_text("has no record that says what it was validated on")
        assert page.evaluate("[window.hurt, document.querySelectorAll('img').length]") == [None, 0]
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("#parts button, #parts select, #parts input")].filter((one) =>
              !(one.textContent.trim() || one.labels?.length || one.ariaLabel)).map((one) => one.outerHTML)"""
        )
        assert nameless == []
