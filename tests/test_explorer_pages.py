"""The explorer over HTTP and as files: what it answers, whom it lets in, and that hostile texts stay texts."""

# ruff: noqa: E402

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for _package in ("starlette", "jinja2", "plotly"):
    pytest.importorskip(_package)

from starlette.testclient import TestClient

from example_record import full_record
from exploring import EVIL, EVIL_FOLDER, hostile, runs_of, several, with_bad_company
from sparsebert.explorer.app import COOKIE, FRESH_S, Desk, application
from sparsebert.explorer.library import Library
from sparsebert.explorer.pages import SCRIPTS, in_script
from sparsebert.records import write_record
from test_report_page import Reader
from tiny_run import assert_refused, run_cli

HERE, TOKEN = "http://127.0.0.1:8080", "a-secret-of-tests"


def client_of(home: Path, token: str | None = None, at: str = HERE) -> TestClient:
    return TestClient(application(Desk(Library([home])), token), base_url=at, follow_redirects=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return several(tmp_path_factory.mktemp("explorer"))


@pytest.fixture
def client(home: Path) -> TestClient:
    return client_of(home)


def data_of(page: str) -> dict[str, Any]:
    """What lies in the page for its scripts."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


def test_the_page_holds_the_points_and_loads_its_own_files_only(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe-inline" not in page.headers["content-security-policy"].partition("style-src")[0]
    reader = Reader(page.text)
    scripts = re.findall(r'src="([^"]+)"', page.text)
    assert scripts == [f"assets/{name}" for name in ("plotly.min.js", *SCRIPTS)]
    for name in (*scripts, *re.findall(r'rel="stylesheet" href="([^"]+)"', page.text)):
        assert client.get(f"/{name}").status_code == 200
    assert "http:" not in page.text and "16 models of 5 runs, sst2" in reader.text
    assert len(data_of(page.text)["points"]) == 20 and data_of(page.text)["live"] is True
    assert set(data_of(page.text)["commands"]) == {"magnitude", "obs0", "obs1", "sparse", "trees"}


def test_a_model_is_a_part_of_the_page(client: TestClient) -> None:
    answer = client.get("/model", params={"key": "obs0/4x"})
    assert answer.status_code == 200
    reader = Reader(answer.text)
    assert (
        "90.6%" in reader.text
        and "Attention heads" in reader.text
        and "a film that is not without charm" in reader.text
    )
    assert client.get("/model", params={"key": "obs0/5x"}).status_code == 404
    assert client.get("/model").text == "there is no such model, or no more"
    assert client.get("/assets/..%2Fapp.py").status_code == client.get("/assets/app.py").status_code == 404
    assert client.get("/nowhere").status_code == 404 and client.post("/").status_code == 405


def test_every_model_can_be_shown(client: TestClient) -> None:
    for point in data_of(client.get("/").text)["points"]:
        Reader(client.get("/model", params={"key": point["key"]}).text)


def test_what_cannot_be_shown_is_a_line_and_the_page_lives_on(tmp_path: Path) -> None:
    page = client_of(with_bad_company(tmp_path)).get("/").text
    said = Reader(page).text
    assert "another schema; got 99" in said and "not readable" in said
    assert "Not finished yet: going ." in said and "failed failed , so it has no models: The training loss" in said
    assert len(data_of(page)["points"]) == 20


def test_a_damaged_file_beside_a_record_is_a_line_of_its_model(tmp_path: Path) -> None:
    several(tmp_path)
    (tmp_path / "trees" / "visits.safetensors").write_bytes(b"short")
    answer = client_of(tmp_path).get("/model", params={"key": "trees/fff-1x10"})
    assert answer.status_code == 200 and "damaged or cut short" in Reader(answer.text).text


def test_a_hostile_record_is_text(tmp_path: Path) -> None:
    client = client_of(hostile(tmp_path))
    page, part = client.get("/").text, client.get("/model", params={"key": f"{EVIL_FOLDER}/4x"}).text
    assert f"{EVIL_FOLDER}/4x" in [point["key"] for point in data_of(page)["points"]]
    for text in (page, part):
        assert "<img" not in text and "hurt=1</script>" not in text
    reader = Reader(part)
    assert EVIL in reader.text and EVIL_FOLDER in reader.text and not {"onerror", "src"} & set(reader.attributes)


def test_data_for_scripts_cannot_end_them() -> None:
    nasty = {"a": "</script><!--<script>", "b": "&amp;\u2028"}
    text = in_script(nasty)
    assert not set("<>&\u2028") & set(text) and json.loads(text) == nasty
    with pytest.raises(ValueError, match="JSON compliant"):
        in_script(float("nan"))


def test_news_are_told_when_a_record_comes(tmp_path: Path) -> None:
    runs_of(tmp_path, one=full_record())
    now = [0.0]
    desk = Desk(Library([tmp_path]), clock=lambda: now[0])
    before = desk.view()
    write_record(full_record(1), tmp_path / "two")
    assert desk.view() is before
    now[0] += FRESH_S
    after = desk.view()
    assert after.shelf.version != before.shelf.version and "two/4x" in after.models
    now[0] += FRESH_S
    assert desk.view() is after


def test_without_a_token_it_answers_to_names_of_this_machine_only(home: Path) -> None:
    for name in ("http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080"):
        assert client_of(home, at=name).get("/state").status_code == 200
    for name in ("http://evil.example:8080", "http://127.0.0.1.evil.example", "http://localhost.example"):
        assert client_of(home, at=name).get("/").status_code == 421
    assert client_of(home).get("/", headers={"Host": "[::1"}).status_code == 421


def test_a_token_is_asked_for_and_kept_in_a_cookie(home: Path) -> None:
    client = client_of(home, TOKEN, "http://machine.example")
    asked = client.get("/")
    assert asked.status_code == 401 and 'type="password"' in asked.text and "obs0" not in asked.text
    assert client.get("/model", params={"key": "obs0/4x"}).status_code == 401
    assert client.get("/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/", headers={"Authorization": "Bearer other"}).status_code == 401
    refused = client.post("/enter", data={"token": "other"})
    assert refused.status_code == 401 and "another one" in refused.text and COOKIE not in client.cookies
    assert client.post("/enter", content=b"token=" + b"x" * 10_000).status_code == 401
    entered = client.post("/enter", data={"token": TOKEN})
    assert entered.status_code == 303 and "HttpOnly" in entered.headers["set-cookie"]
    assert client.get("/").status_code == 200


def test_an_export_holds_the_page_and_all_models(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run_cli("explore", home, "-o", out)
    assert said.exit_code == 0 and said.stdout == f"Open {out / 'index.html'}\n"
    page = (out / "index.html").read_text(encoding="utf-8")
    assert data_of(page)["live"] is False
    for name in re.findall(r'(?:src|href)="(assets/[^"]+)"', page):
        assert (out / name).is_file()
    models = (out / "assets" / "models.js").read_text(encoding="utf-8")
    html = json.loads(models.removeprefix("const MODELS = ").removesuffix(";\n"))
    assert list(html) == [point["key"] for point in data_of(page)["points"]]
    assert str(home) not in page + models
    # Again, over what was written before; what it leaves out is said.
    with_bad_company(tmp_path / "bad")
    said = run_cli("explore", tmp_path / "bad", "-o", out)
    assert said.exit_code == 0 and said.stderr.count("Left out: ") == 2
    assert str(tmp_path) not in (out / "index.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "out"]


def test_what_cannot_be_exported_leaves_nothing(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(run_cli("explore", tmp_path / "empty", "-o", tmp_path / "out"), ["No record found"])
    assert_refused(run_cli("explore", tmp_path / "gone", "-o", tmp_path / "out"), ["no such run", "gone"])
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    assert_refused(run_cli("explore", home, "-o", tmp_path / "full"), ["not empty and holds no export", "--export"])
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_it_does_not_start_where_it_cannot(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(run_cli("explore", tmp_path / "empty"), ["No record found"])
    assert_refused(run_cli("explore", home, "--host", "0.0.0.0"), ["needs a token", "SPARSEBERT_TOKEN"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(run_cli("explore", home, "--port", port), [f"127.0.0.1:{port}", "in use", "--port"])


def test_a_package_that_is_missing_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsebert.cli.explore.PACKAGES", ("starlette", "no_such_package"))
    said = run_cli("explore", home)
    assert_refused(said, ["not installed: no_such_package", "sparsebert[explorer]"])


@pytest.fixture(scope="module")
def started(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The real command, and the address that it says."""
    code = (
        "import sys\nfrom sparsebert.cli import main\n"
        "import sparsebert.explorer.app as app\nmodel_html = app.model_html\n"
        "def told(model):\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "    return model_html(model) + '<!-- heavy: ' + str(sorted(heavy)) + ' -->'\n"
        "app.model_html = told\nmain()"
    )
    command = [sys.executable, "-c", code, "explore", str(home), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()[1]
        process.kill()


@pytest.mark.process
def test_a_real_server_answers_without_torch_and_ends_at_a_signal(
    started: tuple[subprocess.Popen[str], str],
) -> None:
    import httpx

    process, url = started
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/").status_code == 200
        assert client.get("/model", params={"key": "trees/fff-1x10"}).text.endswith("<!-- heavy: [] -->")
        assert (
            client.get("/assets/plotly.min.js", headers={"Accept-Encoding": "gzip"}).headers["content-encoding"]
            == "gzip"
        )
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 0 and process.stderr is not None and process.stderr.read() == ""
