"""notify: the messages that arrive at a real notification socket, and the variables of the watchdog."""

import errno
import os
import socket
import time
from contextlib import closing

import pytest

from echod.systemd.notify import MESSAGE_MAX, STATUS_MAX, Notifier, watchdog_seconds
from tests.unit.hand_loop import HandLoop

ME = str(os.getpid())


def everything(systemd: socket.socket) -> list[bytes]:
    """All messages that have arrived."""
    said = []
    while True:
        try:
            said.append(systemd.recv(4096))
        except BlockingIOError:
            return said


def _no_descriptor(fd: int) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class TestNotifier:
    def test_messages(self, systemd: socket.socket) -> None:
        """Each message is one datagram, in the format of sd_notify(3)."""
        with closing(Notifier(os.environ)) as notifier:
            notifier.ready("Up.")
            notifier.status("Fine.")
            notifier.watchdog()
            notifier.stopping("Down.", 8)
            assert notifier.failed is None
        assert everything(systemd) == [
            b"STATUS=Up.",
            b"READY=1",
            b"STATUS=Fine.",
            b"WATCHDOG=1",
            b"STOPPING=1\nEXTEND_TIMEOUT_USEC=8000000",
            b"STATUS=Down.",
        ]

    def test_reloading(self, systemd: socket.socket) -> None:
        """RELOADING=1 carries the time of the clock that systemd compares, in microseconds (sd_notify(3))."""
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        with closing(Notifier(os.environ)) as notifier:
            notifier.reloading("Wait.")
        reloading, status = everything(systemd)
        assert status == b"STATUS=Wait."
        first, second = reloading.split(b"\n")
        key, _, microseconds = second.partition(b"=")
        assert (first, key) == (b"RELOADING=1", b"MONOTONIC_USEC")
        assert before <= int(microseconds) / 1e6 + 1e-6
        assert int(microseconds) / 1e6 <= time.clock_gettime(time.CLOCK_MONOTONIC)

    @pytest.mark.parametrize(
        ("status", "sent"),
        [
            ("Echoing on unix:/run/é ✓ 𝄞", "Echoing on unix:/run/é ✓ 𝄞"),
            ("unix:/run/\udcff \ud800", r"unix:/run/\udcff \ud800"),
            ("a\0b", "a b"),
        ],
    )
    def test_a_status_that_is_not_ascii(self, systemd: socket.socket, status: str, sent: str) -> None:
        """A status is sent as UTF-8 without NUL, or systemd would ignore it; anything else is escaped."""
        with closing(Notifier(os.environ)) as notifier:
            notifier.status(status)
            assert notifier.failed is None
        assert systemd.recv(4096).decode() == f"STATUS={sent}"

    @pytest.mark.parametrize("character", ["x", "é", "✓", "𝄞"])
    def test_a_status_that_is_too_long(self, systemd: socket.socket, character: str) -> None:
        """systemd drops a message above 4,096 bytes, so a status is cut between two characters, with an ellipsis."""
        with closing(Notifier(os.environ)) as notifier:
            notifier.ready(character * 5000)
            status, ready = everything(systemd)
            assert ready == b"READY=1"
            assert STATUS_MAX - 4 < len(status.removeprefix(b"STATUS=")) <= STATUS_MAX
            assert status.decode() == f"STATUS={character * status.decode().count(character)}…"
            notifier.status("x" * STATUS_MAX)
            assert everything(systemd) == [b"STATUS=" + b"x" * STATUS_MAX]

    def test_no_message_that_systemd_would_drop(self, systemd: socket.socket) -> None:
        """Any other message that is too long is not sent, and the error is kept."""
        with closing(Notifier(os.environ)) as notifier:
            notifier.send("x" * (MESSAGE_MAX + 1), topic="long")
            assert everything(systemd) == []
            assert isinstance(notifier.failed, OSError)
            assert notifier.lost == {"long"}

    def test_a_status_of_several_lines(self, systemd: socket.socket) -> None:
        """A status is sent as one line: a line break in a file name would begin another assignment."""
        with closing(Notifier(os.environ)) as notifier:
            notifier.ready("Up.\nMAINPID=1")
            notifier.status("Fine.\n\nWATCHDOG=trigger\n")
            notifier.stopping("Down.\nFDSTORE=1", 8)
        assert [systemd.recv(4096) for _ in range(5)] == [
            b"STATUS=Up. MAINPID=1",
            b"READY=1",
            b"STATUS=Fine.  WATCHDOG=trigger ",
            b"STOPPING=1\nEXTEND_TIMEOUT_USEC=8000000",
            b"STATUS=Down. FDSTORE=1",
        ]

    def test_a_full_queue(self, systemd: socket.socket) -> None:
        """With a full queue nothing blocks; once there is room, the last reload and the stop are sent first."""
        with closing(Notifier(os.environ)) as notifier:
            while notifier.watchdog():
                pass
            for number in range(5):
                notifier.reloading("Wait.")
                notifier.ready(f"Up {number}.")
            notifier.stopping("Down.", 8)
            assert not notifier.status("Fine.")
            assert not notifier.send_waiting()
            assert set(everything(systemd)) == {b"WATCHDOG=1"}
            assert notifier.status("Fine.")
            reloading, _, status, ready, stopping, *others = everything(systemd)
            assert reloading.startswith(b"RELOADING=1\n")
            assert (status, ready, others) == (b"STATUS=Up 4.", b"READY=1", [b"STATUS=Down.", b"STATUS=Fine."])
            assert stopping.startswith(b"STOPPING=1\n")
            assert notifier.failed is None

    def test_room_again(self, systemd: socket.socket) -> None:
        """Messages that wait are sent, in their order, as soon as the loop sees room, and only then."""
        loop = HandLoop()
        with closing(loop), closing(Notifier(os.environ)) as notifier:
            notifier.attach(loop)
            while notifier.watchdog():
                pass
            read, write = os.pipe()
            notifier.send("FDSTORE=1", [write], topic="echod-test")
            os.close(write)
            notifier.send("FDSTOREREMOVE=1", topic="echod-test")
            assert loop.turn(0) == 0
            assert set(everything(systemd)) == {b"WATCHDOG=1"}
            loop.turn()
            data, fds, _, _ = socket.recv_fds(systemd, 4096, 253)
            assert (data, len(fds)) == (b"FDSTORE=1", 1)
            assert everything(systemd) == [b"FDSTOREREMOVE=1"]
            assert loop.turn(0) == 0
            os.close(fds[0])
            assert os.read(read, 1) == b""  # no copy of the descriptor is left
            os.close(read)

    def test_what_is_outdated(self, systemd: socket.socket) -> None:
        """While messages wait, one that makes earlier ones on its topic pointless replaces them."""
        with closing(Notifier(os.environ)) as notifier:
            while notifier.watchdog():
                pass
            for number in range(3):
                notifier.send(f"A={number}", [0], topic="a", outdates=True)
                notifier.send(f"B={number}", topic="b")
            everything(systemd)
            assert notifier.send_waiting()
            assert everything(systemd) == [b"B=0", b"B=1", b"A=2", b"B=2"]

    def test_closed_while_messages_wait(self, systemd: socket.socket) -> None:
        """Closing discards what waits, with the copies of descriptors: a worker has them after the fork."""
        read, write = os.pipe()
        with closing(Notifier(os.environ)) as notifier:
            while notifier.watchdog():
                pass
            notifier.send("FDSTORE=1", [write])
            os.close(write)
        assert os.read(read, 1) == b""
        os.close(read)

    def test_no_descriptor_left_to_wait_with(self, systemd: socket.socket) -> None:
        """A message whose descriptors cannot be copied is lost, the error is kept, and nothing else happens."""
        with closing(Notifier(os.environ)) as notifier, pytest.MonkeyPatch.context() as patch:
            while notifier.watchdog():
                pass
            patch.setattr(os, "dup", _no_descriptor)
            notifier.send("FDSTORE=1", [0], topic="echod-test")
            assert notifier.lost == {"echod-test"}
            everything(systemd)
            assert notifier.send_waiting()
            assert everything(systemd) == []

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
