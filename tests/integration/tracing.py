"""The system calls of a daemon's processes, as strace(1) reports them, and errors that it makes them return."""

import contextlib
import fcntl
import functools
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pytest

from tests.integration.daemon import DEADLINE

_ROOM = 1 << 20
"""Bytes that may wait to be read; when there are more, the daemon waits too."""
_LINE = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*?)(?:\) += (?P<result>.*)| <unfinished \.\.\.>)")
_RESUMED = re.compile(r"(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<arguments>.*)\) += (?P<result>.*)")


class Call(NamedTuple):
    """One system call that has come back."""

    pid: int
    name: str
    arguments: str
    result: str


class Trace:
    """Put `prefix` before a daemon's command and pass it `pass_fds`; `options` are strace's.

    The daemon is still the child of this process: strace is its grandchild (option -D).
    """

    def __init__(self, *options: str) -> None:
        if not may_trace():
            pytest.skip("strace is not installed, or may not trace here")
        self._read, self._write = os.pipe()
        fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, _ROOM)
        self.prefix = ("strace", "-D", "-f", "-qq", "-o", f"/dev/fd/{self._write}", *options)
        self.pass_fds = (self._write,)
        self._rest = b""
        self._begun: dict[int, str] = {}
        self.calls: list[Call] = []
        """All calls read so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._read)
        os.close(self._write)

    def wait_for(self, name: str, count: int, *, pid: int, result: str = "") -> None:
        """Read until there are `count` calls of that name by that process whose results begin with `result`."""
        deadline = time.monotonic() + DEADLINE
        while sum(call[:2] == (pid, name) and call.result.startswith(result) for call in self.calls) < count:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"not {count} times {name} of {pid} in {self.calls}"
            self._take(os.read(self._read, 1 << 16))

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in map(bytes.decode, lines):
            if match := _RESUMED.match(line):
                pid = int(match["pid"])
                arguments = self._begun.pop(pid, "") + match["arguments"]
                self.calls.append(Call(pid, match["name"], arguments, match["result"]))
            elif match := _LINE.match(line):
                pid = int(match["pid"])
                if match["result"] is None:
                    self._begun[pid] = match["arguments"]
                else:
                    self.calls.append(Call(pid, match["name"], match["arguments"], match["result"]))


@functools.cache
def may_trace() -> bool:
    """Whether strace is there and the kernel lets it."""
    command = ["strace", "-qq", "-o", os.devnull, "true"]
    return shutil.which("strace") is not None and subprocess.run(command, capture_output=True).returncode == 0


@contextlib.contextmanager
def attached(pid: int) -> Iterator[list[Call]]:
    """After the block, the list has all calls of that process during the block, in order."""
    if not may_trace():
        pytest.skip("strace is not installed, or may not trace here")
    calls: list[Call] = []
    with tempfile.NamedTemporaryFile("r") as output:
        command = ["strace", "-f", "-o", output.name, "-p", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            try:
                assert strace.stderr is not None
                first = strace.stderr.readline()
                if "Operation not permitted" in first:
                    pytest.skip(f"strace may not attach to a running process here: {first}")
                assert "attached" in first, first
                yield calls
            finally:
                strace.terminate()
        matches = filter(None, map(_LINE.match, output))
        calls += [Call(int(m["pid"]), m["name"], m["arguments"], m["result"]) for m in matches]


@contextlib.contextmanager
def injected(pid: int, call: str, error: str, when: str = "1") -> Iterator[None]:
    """Make calls of this process fail; `when` says which, counted from now on, as in strace(1)."""
    if not may_trace():
        pytest.skip("strace is not installed, or may not trace here")
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}")
    command = ["strace", "-qq", "-o", os.devnull, *inject, "-p", str(pid)]
    with subprocess.Popen(command) as tracer:
        try:
            deadline = time.monotonic() + DEADLINE
            while f"TracerPid:\t{tracer.pid}\n" not in Path(f"/proc/{pid}/status").read_text():
                assert time.monotonic() < deadline, "strace does not attach"
                os.sched_yield()
            yield
        finally:
            tracer.send_signal(signal.SIGTERM)
