"""The explorer's page in a real Chromium: a server in a thread of its own, and pages that must not complain."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sparsebert.explorer.annex import NO_ANNEX, Annex
from sparsebert.explorer.app import Desk, application
from sparsebert.explorer.library import Library
from sparsebert.serve.door import Address, listening

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MARKS = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium; on Debian: apt-get install chromium"),
]
# Models are opened meanwhile, on machines that do other things too.
expect.set_options(timeout=60_000)


@contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root; drawing by a GPU that is not there costs a fifth of the time.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, "--disable-gpu"])


@contextmanager
def served(homes: list[Path], annex: Annex = NO_ANNEX) -> Iterator[str]:
    """The page of some folders, by a server in a thread of its own."""
    with listening(Address("127.0.0.1", 0)) as door:
        app = application(Desk(Library(homes), annex), None)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}/"
        server.should_exit = True
        thread.join()
        annex.close()


@contextmanager
def opened(
    browser: Browser, url: str, width: int = 1280, first: str = "#scatter .main-svg", **more: Any
) -> Iterator[Page]:
    """A page that must say nothing on its console, and be no wider than its window; `first` is waited for."""
    with browser.new_context(viewport={"width": width, "height": 900}, **more) as context:
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        page.goto(url)
        expect(page.locator(first).first).to_be_visible()
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert said == []
