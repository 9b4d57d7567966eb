"""notify: the messages that arrive at a real notification socket, and the variables of the watchdog."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from echod.systemd.notify import Notifier, watchdog_seconds

ME = str(os.getpid())


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The other end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        if request.param == "path":
            name = str(tmp_path_factory.mktemp("n") / "notify")
            sock.bind(name)
        else:
            name = f"@echod-test-{ME}"
            sock.bind("\0" + name[1:])
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def everything(systemd: socket.socket) -> list[bytes]:
    """The messages that have come."""
    said = []
    while True:
        try:
            said.append(systemd.recv(4096))
        except BlockingIOError:
            return said


class TestNotifier:
    def test_what_is_said(self, systemd: socket.socket) -> None:
        """One datagram for each, in systemd's words."""
        with closing(Notifier(os.environ)) as notifier:
            notifier.ready("Up.")
            notifier.status("Fine.")
            notifier.watchdog()
            notifier.stopping("Down.", 8)
            assert notifier.failed is None
        said = [systemd.recv(4096) for _ in range(4)]
        stopping = b"STOPPING=1\nSTATUS=Down.\nEXTEND_TIMEOUT_USEC=8000000"
        assert said == [b"READY=1\nSTATUS=Up.", b"STATUS=Fine.", b"WATCHDOG=1", stopping]
        with pytest.raises(BlockingIOError):
            systemd.recv(4096)

    def test_reloading(self, systemd: socket.socket) -> None:
        """With the time of the clock that systemd compares, in microseconds, in the same message (sd_notify(3))."""
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        with closing(Notifier(os.environ)) as notifier:
            notifier.reloading()
        first, second = systemd.recv(4096).split(b"\n")
        key, _, microseconds = second.partition(b"=")
        assert (first, key) == (b"RELOADING=1", b"MONOTONIC_USEC")
        assert before <= int(microseconds) / 1e6 + 1e-6
        assert int(microseconds) / 1e6 <= time.clock_gettime(time.CLOCK_MONOTONIC)

    @pytest.mark.parametrize("status", ["Echoing on unix:/run/é ✓ 𝄞", "unix:/run/\udcff"])
    def test_a_status_that_is_not_ascii(self, systemd: socket.socket, status: str) -> None:
        """It leaves as UTF-8, and a file name with whatever bytes it has."""
        with closing(Notifier(os.environ)) as notifier:
            notifier.status(status)
            assert notifier.failed is None
        assert systemd.recv(4096) == b"STATUS=" + os.fsencode(status)

    def test_a_status_of_several_lines(self, systemd: socket.socket) -> None:
        """It is one line: another would be another assignment, and a file's name has the choice of it."""
        with closing(Notifier(os.environ)) as notifier:
            notifier.ready("Up.\nMAINPID=1")
            notifier.status("Fine.\n\nWATCHDOG=trigger\n")
            notifier.stopping("Down.\nFDSTORE=1", 8)
        assert [systemd.recv(4096) for _ in range(3)] == [
            b"READY=1\nSTATUS=Up. MAINPID=1",
            b"STATUS=Fine.  WATCHDOG=trigger ",
            b"STOPPING=1\nSTATUS=Down. FDSTORE=1\nEXTEND_TIMEOUT_USEC=8000000",
        ]

    def test_one_that_does_not_read(self, systemd: socket.socket) -> None:
        """Nobody waits for it: the last reload and the end are said when it reads again, before all else."""
        with closing(Notifier(os.environ)) as notifier:
            while notifier.watchdog():
                pass
            for number in range(5):
                notifier.reloading()
                notifier.ready(f"Up {number}.")
            notifier.stopping("Down.", 8)
            assert not notifier.status("Fine.")
            assert not notifier.send_late()
            said = everything(systemd)
            assert set(said) == {b"WATCHDOG=1"}
            assert notifier.status("Fine.")
            reloading, ready, stopping, *others = everything(systemd)
            assert reloading.startswith(b"RELOADING=1\n")
            assert (ready, others) == (b"READY=1\nSTATUS=Up 4.", [b"STATUS=Fine."])
            assert stopping.startswith(b"STOPPING=1\nSTATUS=Down.\n")
            assert notifier.failed is None

    def test_one_that_is_gone(self, systemd: socket.socket) -> None:
        """The service goes on; the first failure is remembered."""
        with closing(Notifier(os.environ)) as notifier:
            systemd.close()
            notifier.watchdog()
            failed = notifier.failed
            assert isinstance(failed, ConnectionRefusedError)
            notifier.status("Fine.")
            assert notifier.failed is failed

    # sdnotify drops the socket that could not be connected without closing it.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed:ResourceWarning")
    def test_one_that_was_never_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is remembered, and nothing else is tried."""
        monkeypatch.setenv("NOTIFY_SOCKET", f"@echod-test-nobody-{ME}")
        notifier = Notifier(os.environ)
        notifier.ready("Up.")
        assert isinstance(notifier.failed, ConnectionRefusedError)
        notifier.close()

    @pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
    def test_without_systemd(self, environ: dict[str, str]) -> None:
        """Nobody is told, and nothing has failed."""
        notifier = Notifier(environ)
        notifier.ready("Up.")
        notifier.close()
        assert notifier.failed is None

    def test_a_closed_one_says_nothing(self, systemd: socket.socket) -> None:
        """A worker has closed it; it must not speak for the service."""
        notifier = Notifier(os.environ)
        notifier.close()
        notifier.close()
        notifier.status("I am a worker.")
        with pytest.raises(BlockingIOError):
            systemd.recv(4096)


class TestWatchdog:
    @pytest.mark.parametrize(
        ("environ", "seconds"),
        [
            ({}, None),
            ({"WATCHDOG_USEC": "3000000"}, 3.0),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": ME}, 3.0),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": ""}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": ""}, None),
            ({"WATCHDOG_USEC": "-1"}, None),
            ({"WATCHDOG_USEC": "soon"}, None),
        ],
    )
    def test_what_the_variables_mean(self, environ: dict[str, str], seconds: float | None) -> None:
        """Microseconds, if they are meant for this process (sd_watchdog_enabled(3))."""
        assert watchdog_seconds(environ) == seconds
