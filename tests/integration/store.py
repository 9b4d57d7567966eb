"""systemd's descriptor store, with a thread of the test in the place of systemd: it keeps what a daemon gives it, and
passes that to the next."""

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.integration import passing
from tests.integration.daemon import DEADLINE, Daemon
from tests.integration.faults import Fault, patient_with_systemd


class Store:
    """Keeps descriptors by their names, in the order of their arrival; without `room` it keeps none."""

    def __init__(self, directory: Path, *, room: bool = True) -> None:
        self.kept: dict[str, list[int]] = {}
        self._said: list[str] = []
        self._asked = self._answered = 0
        self._room = room
        self._changed = threading.Condition()
        self._path = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        self._free = threading.Event()
        self._free.set()
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run, name="store")
        self._thread.start()

    def names(self) -> list[str]:
        """The names of the kept sockets, one for each; the settings, which are always kept, are left out."""
        self._settle()
        with self._changed:
            return self._names()

    def said(self) -> list[str]:
        """The other messages."""
        self._settle()
        with self._changed:
            return list(self._said)

    def wait_for(self, *names: str) -> None:
        """Wait until just these are kept."""
        with self._changed:
            assert self._changed.wait_for(lambda: sorted(self._names()) == sorted(names), DEADLINE), self._names()

    def daemon(
        self,
        *arguments: str,
        wait: bool = True,
        faults: Sequence[Fault] = (),
        pass_fds: tuple[int, ...] = (),
        prefix: tuple[str, ...] = (),
    ) -> Daemon:
        """Start a daemon with what is kept.

        It waits for this systemd as long as the tests do, which may themselves have to wait for a processor.
        """
        self._settle()
        with self._changed:
            passed = [(name, fd) for name, kept in self.kept.items() for fd in kept]
            fds = tuple(fd for _, fd in passed)
            environment = {"NOTIFY_SOCKET": self._path, "LISTEN_FDNAMES": ":".join(name for name, _ in passed)}
        return Daemon(
            *arguments,
            prefix=(*prefix, *passing.prefix(fds)),
            pass_fds=(*fds, *pass_fds),
            environment=environment,
            wait=wait,
            faults=[patient_with_systemd(DEADLINE), *faults],
        )

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Receive nothing during the block, like a manager that reloads its units."""
        self._settle()
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def close(self) -> None:
        """Close everything, and end the thread."""
        os.close(self._end)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        os.close(self._ended)
        self._socket.close()
        for fds in self.kept.values():
            for fd in fds:
                os.close(fd)

    def _settle(self) -> None:
        """Wait until the thread has received all that was sent so far, even by processes that have exited."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(DEADLINE)
            sock.sendto(b"SETTLE=1", self._path)
        self._asked += 1
        with self._changed:
            assert self._changed.wait_for(lambda: self._answered == self._asked, DEADLINE)

    def _names(self) -> list[str]:
        return [name for name, fds in self.kept.items() for _ in fds if name != "echod-settings"]

    def _run(self) -> None:
        while self._ended not in select.select([self._socket.fileno(), self._ended], [], [])[0]:
            self._free.wait()
            data, fds, _, _ = socket.recv_fds(self._socket, 1 << 16, 253)
            if len(data) > 4096:  # systemd drops such a message as a whole
                for fd in fds:
                    os.close(fd)
                continue
            words = dict(line.split("=", 1) for line in data.decode().split("\n"))
            with self._changed:
                self._take(words, fds)
                self._changed.notify_all()

    def _take(self, words: dict[str, str], fds: list[int]) -> None:
        if "FDSTORE" in words and self._room:
            known = [os.fstat(fd) for kept in self.kept.values() for fd in kept]
            for fd in fds:
                if os.fstat(fd) in known:
                    os.close(fd)
                else:
                    self.kept.setdefault(words["FDNAME"], []).append(fd)
            return
        if "SETTLE" in words:
            self._answered += 1
        elif "FDSTOREREMOVE" in words:
            fds += self.kept.pop(words["FDNAME"], [])
        elif "BARRIER" not in words:
            self._said += [f"{name}={value}" for name, value in words.items()]
        for fd in fds:
            os.close(fd)


def announced_stop(daemon: Daemon) -> int:
    """Do what ExecStop= and systemd do at a stop, read all events to the last, and return the exit status."""
    daemon.process.send_signal(signal.SIGURG)
    return daemon.stop()


@contextmanager
def storing(directory: Path, *, room: bool = True) -> Iterator[Store]:
    """A store that is closed after the block."""
    store = Store(directory, room=room)
    try:
        yield store
    finally:
        with suppress(OSError):
            store.close()
