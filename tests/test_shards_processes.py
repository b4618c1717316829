"""Text in packed rows with several processes, little memory, and processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from packed_text import some_documents, word_tokenizer, write_text
from sparsebert.data import shards as shards_module
from sparsebert.data.chunks import Chunk, Encoder, encoded, one_thread
from sparsebert.data.shards import shard_text
from sparsebert.errors import UserError
from sparsebert.files import PREFIX, folder_beside

WORDS = word_tokenizer()
SERIALISED = WORDS.backend_tokenizer.to_str()
LIMIT_S = 120
LARGE_MB = 40

# The text is words of 100 letters, each one token, so that much of it is read in a short time. What is compared is
# memory that was touched: the address space also grows by what allocators reserve and never use.
PEAKS = """
import sys
from pathlib import Path
from packed_text import word_tokenizer
from sparsebert.data.shards import shard_text

MEGA, LARGE = 1 << 20, int(sys.argv[2])
LINE = b" ".join([b"w" * 100] * 50) + b"\\n"

def text(name, size, between):
    file = Path(sys.argv[1]) / name
    with file.open("wb") as opened:
        for number in range(size * MEGA // len(LINE)):
            opened.write(LINE + (between if number % 5 == 4 else b""))
    return file

def rows(file):
    return len(shard_text([file], word_tokenizer(), 64, file.parent / "out")[0])

def peak():
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) // 1024

# Both many documents and one that never ends.
small = [rows(text(f"small-{number}.txt", LARGE // 10, between)) for number, between in enumerate((b"\\n", b""))]
before = peak()
large = [rows(text(f"large-{number}.txt", LARGE, between)) for number, between in enumerate((b"\\n", b""))]
print([round(many / few) for many, few in zip(large, small)], peak() - before)
"""

# A process that may write no file above a size is killed when it does, here in the middle of the rows.
KILLED = """
import resource, signal, sys
from pathlib import Path
from packed_text import word_tokenizer
from sparsebert.data.shards import shard_text

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
shard_text([Path(sys.argv[1])], word_tokenizer(), 16, Path(sys.argv[2]))
"""


def in_a_process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.mark.process
def test_more_processes_write_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "LETTERS_A_CHUNK", 1000)
    files = [write_text(tmp_path / f"{seed}.txt", some_documents(200, seed)) for seed in range(3)]
    found = [
        shard_text(files, WORDS, 16, tmp_path / str(number), processes=number, held_out=0.2) for number in (1, 2, 3)
    ]
    for same in zip(*found, strict=True):
        parts = [shards for shards in same if shards]
        written = [(shards.folder / "rows.bin").read_bytes() for shards in parts]
        assert len(written) == 3 and len(set(written)) == 1
        assert len({shards.digest for shards in parts}) == 1


def test_the_size_of_chunks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_text(tmp_path / "a.txt", some_documents(300))
    written = []
    for number, (letters, documents) in enumerate(((1, 100), (500, 3), (1 << 20, 1 << 20))):
        monkeypatch.setattr(shards_module, "LETTERS_A_CHUNK", letters)
        monkeypatch.setattr(shards_module, "DOCUMENTS_A_CHUNK", documents)
        shards, _ = shard_text([file], WORDS, 16, tmp_path / str(number))
        written.append((shards.folder / "rows.bin").read_bytes())
    assert len(written[0]) > 1000 and len(set(written)) == 1


@pytest.mark.process
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    done = in_a_process(PEAKS, tmp_path, LARGE_MB)
    found = re.fullmatch(r"(\[10, 10\]) (\d+)\n", done.stdout)
    assert found, done.stderr
    assert int(found[2]) < LARGE_MB / 2


@pytest.mark.process
def test_a_process_that_is_killed_leaves_nothing_under_a_name(tmp_path: Path) -> None:
    file = write_text(tmp_path / "a.txt", some_documents(2000))
    done = in_a_process(KILLED, file, tmp_path / "out")
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    left = list((tmp_path / "out").iterdir())
    assert left and all(entry.name.startswith(PREFIX) for entry in left)
    for entry in left:
        os.utime(entry, (0, 0))
    with folder_beside(tmp_path / "out" / "another") as written:
        os.utime(written, (0, 0))
        shards, _ = shard_text([file], WORDS, 16, tmp_path / "out")
        assert shards.rows * 32 > 30_000
        assert {*(tmp_path / "out").iterdir()} == {written, shards.folder.parent}


@pytest.mark.process
def test_chunks_are_read_as_they_are_needed() -> None:
    read = 0

    def chunks() -> Iterator[Chunk]:
        nonlocal read
        for read in range(1, 101):
            yield Chunk(0, read, (f"w{read % 30} w1",))

    for number, (chunk, tokens) in enumerate(encoded(chunks(), SERIALISED, 0.0, 2), start=1):
        assert chunk.place == number and tokens.ids.tolist() == [number % 30 + 5, 6]
        assert read <= number + 6
    assert read == 100
    assert multiprocessing.active_children() == []


@pytest.mark.process
def test_a_worker_that_is_ended_from_outside_is_told() -> None:
    def chunks() -> Iterator[Chunk]:
        for number in range(100):
            yield Chunk(0, number, ("w1",))
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(UserError, match=r"was ended from outside; see whether memory ran out"):
        list(encoded(chunks(), SERIALISED, 0.0, 2))


def test_a_share_of_nothing_holds_out_nothing() -> None:
    texts = tuple(some_documents(200))
    sides = [Encoder(SERIALISED, share).encode(texts).held_out.sum() for share in (0.0, 0.5, 0.999)]
    assert sides[0] == 0 and 60 < sides[1] < 140 and sides[2] >= 198


@pytest.mark.parametrize("before", [None, "true"])
def test_threads_are_only_off_inside(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    name = "TOKENIZERS_PARALLELISM"
    monkeypatch.delenv(name, raising=False)
    if before:
        monkeypatch.setenv(name, before)
    with one_thread():
        assert os.environ[name] == "false"
    assert os.environ.get(name) == before
