"""notify: the messages that arrive at a real notification socket, and the variables of the watchdog."""

import os
import socket
import time
from contextlib import closing

import pytest

from echod.systemd.notify import Notifier, watchdog_seconds

ME = str(os.getpid())


def everything(systemd: socket.socket) -> list[bytes]:
    """All messages that have arrived."""
    said = []
    while True:
        try:
            said.append(systemd.recv(4096))
        except BlockingIOError:
            return said


class TestNotifier:
    def test_messages(self, systemd: socket.socket) -> None:
        """Each message is one datagram, in the format of sd_notify(3)."""
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
        """RELOADING=1 carries the time of the clock that systemd compares, in microseconds (sd_notify(3))."""
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
        """A status is sent as UTF-8, and a file name in it as the bytes that it has."""
        with closing(Notifier(os.environ)) as notifier:
            notifier.status(status)
            assert notifier.failed is None
        assert systemd.recv(4096) == b"STATUS=" + os.fsencode(status)

    def test_a_status_of_several_lines(self, systemd: socket.socket) -> None:
        """A status is sent as one line: a line break in a file name would begin another assignment."""
        with closing(Notifier(os.environ)) as notifier:
            notifier.ready("Up.\nMAINPID=1")
            notifier.status("Fine.\n\nWATCHDOG=trigger\n")
            notifier.stopping("Down.\nFDSTORE=1", 8)
        assert [systemd.recv(4096) for _ in range(3)] == [
            b"READY=1\nSTATUS=Up. MAINPID=1",
            b"STATUS=Fine.  WATCHDOG=trigger ",
            b"STOPPING=1\nSTATUS=Down. FDSTORE=1\nEXTEND_TIMEOUT_USEC=8000000",
        ]

    def test_a_full_queue(self, systemd: socket.socket) -> None:
        """With a full queue nothing blocks; once there is room, the last reload and the stop are sent first."""
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

    def test_a_receiver_that_is_gone(self, systemd: socket.socket) -> None:
        """If the receiver has gone away, sending raises no error, and the first error is kept."""
        with closing(Notifier(os.environ)) as notifier:
            systemd.close()
            notifier.watchdog()
            failed = notifier.failed
            assert isinstance(failed, ConnectionRefusedError)
            notifier.status("Fine.")
            assert notifier.failed is failed

    # sdnotify drops the socket that could not be connected without closing it.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed:ResourceWarning")
    def test_a_receiver_that_was_never_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """If there never was a receiver, the error is kept, and nothing is sent."""
        monkeypatch.setenv("NOTIFY_SOCKET", f"@echod-test-absent-{ME}")
        notifier = Notifier(os.environ)
        notifier.ready("Up.")
        assert isinstance(notifier.failed, ConnectionRefusedError)
        notifier.close()

    @pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
    def test_without_systemd(self, environ: dict[str, str]) -> None:
        """Without systemd nothing is sent, and nothing fails."""
        notifier = Notifier(environ)
        notifier.ready("Up.")
        notifier.close()
        assert notifier.failed is None

    def test_a_closed_notifier(self, systemd: socket.socket) -> None:
        """A closed notifier sends nothing: a worker closes it, and must not send messages for the service."""
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
        """The time is in microseconds, and applies only if it is meant for this process (sd_watchdog_enabled(3))."""
        assert watchdog_seconds(environ) == seconds
