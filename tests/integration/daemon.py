"""A real echod, started as its users start it, for the tests to talk to."""

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.integration.faults import Fault, dump

DEADLINE = 20.0
"""Seconds to wait for anything; only what never happens takes that long."""

FOR_DAEMONS = ("ECHOD_", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "JOURNAL_STREAM")
"""The prefixes of the environment variables that a daemon reads."""


Event = dict[str, Any]


class Daemon:
    """A daemon on a port of the kernel's choice, and its events.

    `arguments` are added to the command line, `environment` to this process's without what is for a daemon; `prefix`
    is a command to run it under, such as `strace` or `prlimit`; `faults` are what goes wrong in it. `stderr` is a
    descriptor to write events to, in place of a pipe to this process; then `stderr_read` is the one to read them from,
    if there is any. Both stay the caller's. With `group` it leads a process group of its own.
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        pass_fds: tuple[int, ...] = (),
        wait: bool = True,
        faults: Sequence[Fault] = (),
        stderr: int | None = None,
        stderr_read: int | None = None,
        group: bool = False,
    ) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(FOR_DAEMONS)}
        environ |= {"ECHOD_CONFIG": os.devnull} | dict(environment or {})
        program = ["-m", "tests.integration.faulty", dump(faults)] if faults else ["-m", "echod"]
        self.process = subprocess.Popen(
            [*prefix, sys.executable, *program, "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if stderr is None else stderr,
            env=environ,
            pass_fds=pass_fds,
            start_new_session=group,
            cwd=Path(__file__).parents[2],
        )
        self._stderr = stderr_read if self.process.stderr is None else self.process.stderr.fileno()
        self.events: list[Event] = []
        self.words: list[str] = []
        """Lines that are no events: sentences for people."""
        self._rest = b""
        if wait:
            try:
                self.wait_for("ready")
            except BaseException:
                self._kill()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # SIGTERM would first ask systemd, if the test has one
            try:
                self.read_to_end()
            finally:
                self._kill()
        self._kill()

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    @property
    def pid(self) -> int:
        """The parent's process."""
        return self.process.pid

    @property
    def addresses(self) -> list[str]:
        """The addresses on which it listens, as its events say."""
        return [event["address"] for event in self.events if event["event"] == "listening"]

    @property
    def port(self) -> int:
        """The port of the first address."""
        return int(self.addresses[0].rpartition(":")[2])

    @property
    def workers(self) -> dict[int, int]:
        """The process of each worker, the last that was started."""
        started = [event for event in self.events if event["event"] == "worker_started"]
        return {event["worker"]: event["worker_pid"] for event in started}

    def connect(self, address: str = "") -> socket.socket:
        """A connection to `address`, which is the first if not given; it waits for nothing longer than `DEADLINE`."""
        name = address or self.addresses[0]
        if name.startswith("unix:"):
            path = name.removeprefix("unix:")
            sock, peer = socket.socket(socket.AF_UNIX), "\0" + path[1:] if path.startswith("@") else path
            sock.settimeout(DEADLINE)
            try:
                sock.connect(peer)
            except BaseException:
                sock.close()
                raise
            return sock
        host, _, port = name.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), DEADLINE)

    def of(self, name: str) -> list[Event]:
        """The events of that name that have been read."""
        return [event for event in self.events if event["event"] == name]

    def wait_for(self, name: str, count: int = 1, where: Callable[[Event], bool] = lambda event: True) -> Event:
        """Read events until the `count`th of that name, and for which `where` holds, and return it."""
        lines, seen, found = self._lines(), 0, 0
        while True:
            for event in self.events[seen:]:
                seen += 1
                found += event["event"] == name and where(event)
                if found == count:
                    return event
            assert next(lines, None) is not None, f"no {name} in {self.events} {self.words}"

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, read all events to the last, and return the exit status."""
        self.process.send_signal(signum)
        return self.read_to_end()

    def read_to_end(self) -> int:
        """Read all events to the last, and return the exit status."""
        for _ in self._lines():
            pass
        return self.process.wait(DEADLINE)

    def wait_for_words(self, words: str) -> str:
        """Read until a line that is no event has these words in it, and return it."""
        lines = self._lines()
        while True:
            for line in self.words:
                if words in line:
                    return line
            assert next(lines, None) is not None, f"no {words} in {self.words}"

    def read_until_quiet(self, pid: int) -> None:
        """Read until there is no more to read and that process sleeps: then it has nothing left to write."""
        assert self._stderr is not None
        while select.select([self._stderr], [], [], 0)[0]:
            assert next(self._lines(), None) is not None, f"the end of {self.events[-3:]}"
            wait_for_state(pid, "S")

    def hang_up(self) -> None:
        """Close the pipe, so that the daemon's next event cannot be written."""
        assert self.process.stderr is not None
        self.process.stderr.close()
        self._stderr = None

    def _lines(self) -> Iterator[str]:
        if self._stderr is None:
            return
        deadline = time.monotonic() + DEADLINE
        while True:
            *lines, self._rest = self._rest.split(b"\n")
            for number, line in enumerate(lines):
                text = line.decode()
                self.events.append(json.loads(text)) if text.startswith("{") else self.words.append(text)
                # Whoever stops here loses nothing: the rest is split again the next time.
                if number == len(lines) - 1:
                    yield text
            ready, _, _ = select.select([self._stderr], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"nothing more for {DEADLINE} s after {self.events[-3:]} {self.words[-3:]}"
            try:
                data = os.read(self._stderr, 1 << 16)
            except OSError as error:
                if error.errno != errno.EIO:  # a terminal that nobody holds any more
                    raise
                return
            if not data:
                return
            self._rest += data


class Configured(Daemon):
    """A daemon with a configuration file, which can be changed."""

    def __init__(self, file: Path, text: str, *arguments: str, **options: object) -> None:
        self.file = file
        self.file.write_text(text)
        self.count = 0
        super().__init__("--config", str(file), *arguments, **options)  # type: ignore[arg-type]

    def hang_up_on(self, text: str) -> None:
        """Write another configuration, and send the signal."""
        self.file.write_text(text)
        self.process.send_signal(signal.SIGHUP)

    def reload(self, text: str) -> Event:
        """The same, and wait until it is in effect."""
        self.hang_up_on(text)
        self.count += 1
        return self.wait_for("reloaded", self.count)


class Gate:
    """A pipe by which a daemon is held up: a fault in it reads from `fd` and waits until the gate opens."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        os.close(self.fd)

    def open(self) -> None:
        """Let the daemon go on; once open it stays so."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1


def send_and_get(sock: socket.socket, data: bytes) -> None:
    """Send `data` and receive its echo."""
    sock.sendall(data)
    received = bytearray()
    while len(received) < len(data):
        chunk = sock.recv(len(data) - len(received))
        assert chunk, f"the end after {len(received)} of {len(data)} bytes"
        received += chunk
    assert received == data


def receive_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    received = bytearray()
    while chunk := sock.recv(1 << 16):
        received += chunk
    return bytes(received)


def freeze(pid: int) -> None:
    """Stop a process, and wait until it has stopped, which only its parent could be notified of."""
    os.kill(pid, signal.SIGSTOP)
    wait_for_state(pid, "T")


def wait_for_state(pid: int, wanted: str) -> None:
    """Wait until a process is in that state."""
    deadline = time.monotonic() + DEADLINE
    while state(pid) != wanted:
        assert time.monotonic() < deadline, f"process {pid} is {state(pid)}, not {wanted}"
        os.sched_yield()


def wait_for_child(pid: int) -> int:
    """Wait until a process has a child, and return one."""
    deadline = time.monotonic() + DEADLINE
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        assert time.monotonic() < deadline, f"process {pid} has no child"
        os.sched_yield()
    return int(children[-1])


def state(pid: int) -> str:
    """What the process does: R runs, S sleeps, T is stopped, Z has ended (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def stuff(sock: socket.socket, worker: int) -> None:
    """Send without ever reading until nothing moves any more: there is no room to send, and the worker sleeps."""
    sock.setblocking(False)
    deadline, quiet = time.monotonic() + DEADLINE, 0
    while quiet < 10:
        try:
            sock.send(bytes(1 << 16))
            quiet = 0
        except BlockingIOError:
            quiet = quiet + 1 if state(worker) == "S" else 0
            os.sched_yield()
        assert time.monotonic() < deadline, "there is always room to send"
    sock.settimeout(DEADLINE)


def is_probed(client: socket.socket) -> bool:
    """Whether the daemon's end of a connection has a keepalive timer (/proc/net/tcp, `tr`: 1 retransmits, 2 probes)."""
    ends = [
        f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"
        for host, port in (client.getpeername(), client.getsockname())
    ]
    while True:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        (timer,) = (line[5].partition(":")[0] for line in lines if line[1:3] == ends)
        if timer != "01":
            return timer == "02"
        os.sched_yield()


@contextmanager
def until_gone(*pids: int) -> Iterator[None]:
    """At the end of the block, wait until the processes that run at its beginning have ended."""
    with ExitStack() as stack:
        pidfds = []
        for pid in pids:
            pidfds.append(os.pidfd_open(pid))
            stack.callback(os.close, pidfds[-1])
        yield
        for pid, pidfd in zip(pids, pidfds, strict=True):
            assert select.select([pidfd], [], [], DEADLINE)[0], f"process {pid} is still there"
