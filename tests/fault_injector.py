"""Dies for a run at every system call that writes: records what is on disk before each, and tries to go on from there.

A traced process stops before each of its writing system calls (seccomp and ptrace, Linux on x86-64). What lies in the
run folder at that moment is what a process would leave that is killed there, so one traced run gives them all; states
that differ only in files under temporary names, which every start clears, count once. Each distinct state is then
gone on with by the same command in a process of its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparsebert.files import PREFIX

# Numbers of x86-64.
WRITES = {"write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "pwritev2": 328}
OPENS = {"open": (2, 1), "openat": (257, 2)}
CHANGES = {
    **{"ftruncate": 77, "truncate": 76, "fallocate": 285, "rename": 82, "renameat": 264, "renameat2": 316},
    **{"unlink": 87, "unlinkat": 263, "mkdir": 83, "mkdirat": 258, "rmdir": 84, "link": 86, "linkat": 265},
    **{"symlink": 88, "symlinkat": 266, "creat": 85, "copy_file_range": 326, "sendfile": 40, "msync": 26},
}
AUDIT_ARCH_X86_64 = 0xC000003E
SECCOMP_RET_ALLOW, SECCOMP_RET_TRACE = 0x7FFF0000, 0x7FF00000
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
PTRACE_TRACEME, PTRACE_CONT, PTRACE_SETOPTIONS = 0, 7, 0x4200
TRACE_FORK, TRACE_VFORK, TRACE_CLONE, TRACE_SECCOMP, EXIT_KILL = 2, 4, 8, 1 << 7, 1 << 20
EVENT_SECCOMP = 7
LD, JEQ, JGT, JSET, RET = 0x20, 0x15, 0x25, 0x45, 0x06
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


@dataclass(frozen=True)
class State:
    """What lay in a run folder before the writing system call `number`, copied to `folder`; `files` by content."""

    number: int
    folder: Path
    files: dict[str, str]


@dataclass(frozen=True)
class Traced:
    """One traced run: its exit code, how many writing system calls it made, and the distinct states before them."""

    code: int
    calls: int
    states: tuple[State, ...]


def available() -> bool:
    """Whether this machine can trace: Linux on x86-64 where ptrace is allowed."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return False
    child = os.fork()
    if child == 0:
        os._exit(0 if libc.ptrace(PTRACE_TRACEME, 0, None, None) == 0 else 1)
    return os.waitpid(child, 0)[1] == 0


def trace(work: Callable[[], int], out: Path, store: Path) -> Traced:
    """Run `work`, which writes into `out`, in a child, and copy every distinct state of `out` into `store`."""
    child = os.fork()
    if child == 0:
        _be_traced(work)
    os.waitpid(child, 0)
    options = TRACE_FORK | TRACE_VFORK | TRACE_CLONE | TRACE_SECCOMP | EXIT_KILL
    _ptrace(PTRACE_SETOPTIONS, child, options)
    _ptrace(PTRACE_CONT, child, 0)
    calls, states, known = 0, [], set()
    for _ in _stops(child):
        calls += 1
        files = content(out)
        if (signature := str(files)) not in known:
            known.add(signature)
            states.append(State(calls, store / str(calls), files))
            _copy(out, states[-1].folder)
    return Traced(_ended[child], calls, tuple(states))


_ended: dict[int, int] = {}


def _stops(child: int) -> Iterator[int]:
    """Every stop before a writing system call, of any thread; remembers the exit code of the child."""
    while True:
        pid, status = os.waitpid(-1, 0x40000000)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if pid == child:
                _ended[child] = os.waitstatus_to_exitcode(status)
                return
            continue
        if status >> 8 == signal.SIGTRAP | (EVENT_SECCOMP << 8):
            yield pid
            _ptrace(PTRACE_CONT, pid, 0)
            continue
        # New threads begin with a stop, events of their making are stops; other signals are theirs.
        own = os.WSTOPSIG(status)
        _ptrace(PTRACE_CONT, pid, 0 if status >> 16 or own in (signal.SIGTRAP, signal.SIGSTOP) else own)


def _be_traced(work: Callable[[], int]) -> None:
    code = 70
    try:
        _ptrace(PTRACE_TRACEME, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        _filter_writes()
        code = work()
    finally:
        os._exit(code)


def _ptrace(request: int, pid: int, data: int) -> None:
    if libc.ptrace(request, pid, None, data) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def _filter_writes() -> None:
    """Stop before system calls that change files; writing to stdout and stderr is none."""
    program = [(LD, 0, 0, ARCH), (JEQ, 1, 0, AUDIT_ARCH_X86_64), (RET, 0, 0, SECCOMP_RET_ALLOW), (LD, 0, 0, NUMBER)]
    for number in CHANGES.values():
        program += [(JEQ, 0, 1, number), (RET, 0, 0, SECCOMP_RET_TRACE)]
    for number in WRITES.values():
        program += [(JEQ, 0, 4, number), (LD, 0, 0, FIRST_ARGUMENT), (JGT, 0, 1, 2)]
        program += [(RET, 0, 0, SECCOMP_RET_TRACE), (RET, 0, 0, SECCOMP_RET_ALLOW)]
    for number, argument in OPENS.values():
        program += [(JEQ, 0, 4, number), (LD, 0, 0, FIRST_ARGUMENT + 8 * argument)]
        program += [(JSET, 0, 1, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)]
        program += [(RET, 0, 0, SECCOMP_RET_TRACE), (RET, 0, 0, SECCOMP_RET_ALLOW)]
    program.append((RET, 0, 0, SECCOMP_RET_ALLOW))
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def representatives(states: Sequence[State]) -> list[State]:
    """The first, a middle and the last of each stretch in which one file grows, and all others."""
    stretches: list[list[State]] = []
    growing: str | None = None
    for before, state in zip((None, *states), states, strict=False):
        file = _converted(before, state)
        if not stretches or file is None or (growing not in (None, file)):
            stretches.append([])
        stretches[-1].append(state)
        growing = file
    return [stretch[place] for stretch in stretches for place in sorted({0, len(stretch) // 2, len(stretch) - 1})]


def _converted(before: State | None, state: State) -> str | None:
    """The one file in which two states differ, if it is one that both have."""
    if before is None or before.files.keys() != state.files.keys():
        return None
    changed = [name for name, known in state.files.items() if before.files[name] != known]
    return changed[0] if len(changed) == 1 else None


def content(folder: Path) -> dict[str, str]:
    """Names of all that a start would not clear, with a digest where it is a file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in _kept(folder)
    }


def _kept(folder: Path) -> list[Path]:
    found = []
    for parent, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(PREFIX)]
        found += [Path(parent) / name for name in (*names, *files) if not name.startswith(PREFIX)]
    return sorted(found)


def _copy(folder: Path, target: Path) -> None:
    """With hard links between its own files as they were: what is shared stays shared."""
    if not folder.exists():
        target.mkdir(parents=True)
        return
    copied: dict[int, Path] = {}

    def copy(source: str, goal: str) -> None:
        number = os.stat(source).st_ino
        if number in copied:
            os.link(copied[number], goal)
        else:
            shutil.copy2(source, goal)
            copied[number] = Path(goal)

    shutil.copytree(folder, target, copy_function=copy)


def in_child(work: Callable[[], int], log: Path) -> int:
    """The exit code of `work` in a process of its own, whose output goes to `log`."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            with _output_to(log):
                code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for target in (1, 2):
        os.dup2(handle, target)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
