"""systemd: what is said to a real notification socket, and what is taken from the environment."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from echod.systemd.notify import Notifier, listen_fds, watchdog_seconds

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


class TestListenFds:
    @pytest.mark.parametrize(
        "environ",
        [
            {},
            {"LISTEN_FDS": "1"},
            {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
            {"LISTEN_FDS": "1", "LISTEN_PID": "me"},
            {"LISTEN_FDS": "0", "LISTEN_PID": ME},
            {"LISTEN_FDS": "-1", "LISTEN_PID": ME},
            {"LISTEN_FDS": "many", "LISTEN_PID": ME},
            {"LISTEN_FDS": "", "LISTEN_PID": ME},
            {"LISTEN_PID": ME},
        ],
    )
    def test_nothing_was_passed_to_us(self, environ: dict[str, str]) -> None:
        """Not without both variables, and not if another process was meant; no descriptor is touched."""
        variables = environ | {"LISTEN_FDNAMES": "a", "OTHER": "b"}
        assert listen_fds(variables) == []
        assert variables == {"OTHER": "b"}

    def test_the_first_is_3(self) -> None:
        """They follow each other, are not inherited by any program we start, and the variables are gone."""
        numbers = (3, 4)
        saved = {fd: os.dup(fd) for fd in numbers if _is_open(fd)}
        reads, writes = os.pipe()
        for old, new in zip((reads, writes), numbers, strict=True):
            if old != new:
                os.dup2(old, new, inheritable=True)
        try:
            environ = {"LISTEN_FDS": "2", "LISTEN_PID": ME, "LISTEN_FDNAMES": "a:b"}
            assert listen_fds(environ) == [(3, "a"), (4, "b")]
            assert not any(os.get_inheritable(fd) for fd in numbers)
            assert environ == {}
        finally:
            for fd in {reads, writes, *numbers}:
                os.close(fd)
            for fd, copy in saved.items():
                os.dup2(copy, fd, inheritable=False)
                os.close(copy)

    def test_a_probe_that_was_left(self) -> None:
        """What a process that was killed while it tried the store has left there is nobody's, and closed."""
        saved = {fd: os.dup(fd) for fd in (3,) if _is_open(fd)}
        null = os.open(os.devnull, os.O_RDONLY)
        if null != 3:
            os.dup2(null, 3)
            os.close(null)
        try:
            assert listen_fds({"LISTEN_FDS": "1", "LISTEN_PID": ME, "LISTEN_FDNAMES": "echod-probe"}) == []
            assert not _is_open(3)
        finally:
            for fd, copy in saved.items():
                os.dup2(copy, fd, inheritable=False)
                os.close(copy)

    def test_one_that_is_not_open(self) -> None:
        """It is named all the same: whoever adopts it says what is wrong."""
        count = max(map(int, os.listdir("/proc/self/fd")))
        fd, name = listen_fds({"LISTEN_FDS": str(count), "LISTEN_PID": ME})[-1]
        assert (fd, name) == (count + 2, "")
        assert not _is_open(fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
