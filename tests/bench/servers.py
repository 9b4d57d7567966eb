"""The servers to compare, each in processes of its own on one CPU."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.bench import processes
from tests.bench.processes import Failed

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

START_TIMEOUT = STOP_TIMEOUT = 10.0
"""Seconds for a server to listen, and to end on SIGTERM before it is killed."""
POLL = 0.01
"""Seconds between checks of the output of a starting server."""

FOR_DAEMONS = ("ECHOD_", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "JOURNAL_STREAM", "PYTHONSAFEPATH")
"""The prefixes of variables that would change the measurement."""

XINETD = """\
service echo
{
    type = INTERNAL UNLISTED
    socket_type = stream
    protocol = tcp
    wait = no
    user = root
    bind = 127.0.0.1
    port = 0
    cps = 1000000 1
    instances = UNLIMITED
    per_source = UNLIMITED
}
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A server to be compared: `argv` is run in `directory`."""

    name: str
    argv: tuple[str, ...]
    directory: Path = HERE
    is_echod: bool = False
    forks: bool = False
    """Whether it has a process for each connection; such a server does not print its port."""


def echod_in(checkout: Path, name: str = "echod") -> Kind:
    """One worker of the echod in `checkout`, with its defaults."""
    flags = ("--host=127.0.0.1", "--port=0", "--workers=1", "--log-format=json", "--log-level=info")
    argv = (sys.executable, "-m", "echod", f"--config={os.devnull}", *flags)
    return Kind(name, argv, checkout, is_echod=True)


def _epoll(name: str, chunk_size: int, directory: Path) -> Kind:
    return Kind(name, (compile_program("epoll_echo.c", directory), str(chunk_size)))


def _xinetd(directory: Path) -> Kind:
    file = directory / "xinetd.conf"
    file.write_text(XINETD)
    argv = ("xinetd", "-dontfork", "-filelog", os.devnull, "-f", str(file), "-pidfile", str(directory / "xinetd.pid"))
    return Kind("xinetd", argv, forks=True)


def _socat(directory: Path) -> Kind:
    listen = "TCP-LISTEN:0,bind=127.0.0.1,fork,backlog=1024,nodelay"
    return Kind("socat", ("socat", "-t10", listen, "PIPE"), forks=True)


SERVERS: dict[str, Callable[[Path], Kind]] = {
    "echod": lambda directory: echod_in(ROOT),
    "c": lambda directory: _epoll("c", 64 << 10, directory),
    "c256": lambda directory: _epoll("c256", 256 << 10, directory),
    "uvloop": lambda directory: Kind("uvloop", (sys.executable, "asyncio_echo.py", "uvloop")),
    "asyncio": lambda directory: Kind("asyncio", (sys.executable, "asyncio_echo.py")),
    "xinetd": _xinetd,
    "socat": _socat,
}
"""By name, the function that creates each; its argument is a directory for files."""


def compile_program(source: str, directory: Path, *options: str) -> str:
    """Compile a C file that lies beside this one; returns the program's path.  Raises `Failed`."""
    program = directory / Path(source).stem
    command = ["cc", "-O2", "-Wall", "-Wextra", *options, "-o", str(program), str(HERE / source)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode:
        raise Failed(f"cc does not compile {source}: {result.stderr.strip()}")
    return str(program)


@contextmanager
def on_cpu(cpu: int | None) -> Iterator[None]:
    """Processes started in the block inherit this CPU alone (sched_setaffinity(2)); None sets nothing."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A running server; as a context manager, it ends the server.  Raises `Failed` if the server does not start.

    Its output goes to a file: a pipe would need a reader, which would run beside the load generator, and whose wake-ups
    would cost the server time.
    """

    def __init__(self, kind: Kind, flags: tuple[str, ...], cpu: int | None, log: IO[str]) -> None:
        self.kind = kind
        self.name = kind.name
        self._log = log
        environment = {name: value for name, value in os.environ.items() if not name.startswith(FOR_DAEMONS)}
        argv = kind.argv + flags if kind.is_echod else kind.argv
        with on_cpu(cpu):
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=kind.directory, env=environment
            )
        try:
            self.port = self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, gently first; echod's worker goes with its parent either way, and so do its clients' processes."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def cpu_ns(self, *, alone: bool = False) -> int:
        """CPU time used so far by all its processes, user and system, in nanoseconds.  Raises `Failed`.

        With `alone`, it first waits for the end of the processes of connections that are closed.
        """
        deadline = time.monotonic() + STOP_TIMEOUT
        while alone and len(self.pids()) > 1 and time.monotonic() < deadline:
            time.sleep(POLL / 10)
        try:
            return processes.cpu_ns(self.pids(), self._process.pid)
        except OSError:
            raise Failed(f"a process of {self.name} ended: {self.last_words()}") from None

    def pids(self) -> list[int]:
        """Its process and all descendants."""
        return processes.family(self._process.pid)

    def last_words(self) -> str:
        """The end of its output, or a remark that there was none."""
        lines = self._said()
        return lines[-1] if lines else "(it said nothing)"

    def _said(self) -> list[str]:
        return Path(self._log.name).read_text(errors="replace").splitlines()

    def _wait_until_ready(self) -> int:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Failed(
                    f"{self.name} left with {self._process.returncode} instead of serving: {self.last_words()}"
                )
            port = processes.listening_port(self._process.pid) if self.kind.forks else _port(self._said())
            if port:
                return port
            time.sleep(POLL)
        raise Failed(f"{self.name} was not ready after {START_TIMEOUT:g} s: {self.last_words()}")


def _port(lines: list[str]) -> int:
    """The port once the server serves, else 0: a bare number, or echod's events `listening` and `ready`."""
    port, ready = 0, False
    for line in lines:
        if line.isdecimal():
            return int(line)
        try:
            event = json.loads(line)
        except ValueError:  # a line that is half written, or a warning
            continue
        if event.get("event") == "listening":
            port = int(event["address"].rpartition(":")[2])
        ready = ready or event.get("event") == "ready"
    return port if ready else 0
