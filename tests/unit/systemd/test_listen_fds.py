"""listen_fds: the descriptors that systemd passes at a start, taken from the environment."""

import os

import pytest

from echod.systemd.listen_fds import PassedFd, PassedFds, listen_fds

ME = str(os.getpid())


def test_origins() -> None:
    """Every name that begins with `echod-` is echod's, even if unknown; all other names are those of .socket units."""
    names = ["echod-listener", "echo.socket", "echod-colour", "echod-listener", "", "echod"]
    passed = PassedFds([PassedFd(fd, name) for fd, name in enumerate(names, 3)])
    assert passed.named("echod-listener") == [3, 6]
    assert passed.named("echod-handover") == []
    assert passed.from_socket_unit() == [4, 7, 8]


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
            {"LISTEN_FDS": "1048577", "LISTEN_PID": ME},
            {"LISTEN_FDS": "many", "LISTEN_PID": ME},
            {"LISTEN_FDS": "", "LISTEN_PID": ME},
            {"LISTEN_PID": ME},
        ],
    )
    def test_nothing_was_passed_to_us(self, environ: dict[str, str]) -> None:
        """Unless both variables are set and mean this process, no descriptor is touched; the variables are removed."""
        variables = environ | {"LISTEN_FDNAMES": "a", "OTHER": "b"}
        assert listen_fds(variables).fds == []
        assert variables == {"OTHER": "b"}

    @pytest.mark.parametrize(
        ("environ", "beginning"),
        [
            ({}, ""),
            ({"LISTEN_PID": ME}, ""),
            ({"LISTEN_FDS": "0", "LISTEN_PID": "1"}, ""),
            ({"LISTEN_FDS": "1"}, "LISTEN_FDS is set, but LISTEN_PID names no process, not "),
            ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, "LISTEN_FDS is set, but LISTEN_PID names process 1, not "),
            ({"LISTEN_FDS": "many", "LISTEN_PID": ME}, "LISTEN_FDS is 'many', not a number of descriptors, so "),
        ],
    )
    def test_why_not(self, environ: dict[str, str], beginning: str) -> None:
        """A sentence says why passed descriptors are not used, if any were passed."""
        warning = listen_fds(environ).warning
        assert warning.startswith(beginning)
        assert bool(warning) == bool(beginning)

    def test_the_first_is_3(self) -> None:
        """The descriptors begin at 3 and become non-inheritable, and the variables are removed."""
        numbers = (3, 4)
        saved = {fd: os.dup(fd) for fd in numbers if _is_open(fd)}
        reads, writes = os.pipe()
        for old, new in zip((reads, writes), numbers, strict=True):
            if old != new:
                os.dup2(old, new, inheritable=True)
        try:
            environ = {"LISTEN_FDS": "2", "LISTEN_PID": ME, "LISTEN_FDNAMES": "a:b"}
            assert listen_fds(environ).fds == [(3, "a"), (4, "b")]
            assert not any(os.get_inheritable(fd) for fd in numbers)
            assert environ == {}
        finally:
            for fd in {reads, writes, *numbers}:
                os.close(fd)
            for fd, copy in saved.items():
                os.dup2(copy, fd, inheritable=False)
                os.close(copy)

    def test_a_probe_that_was_left(self) -> None:
        """The probe of a process that was killed while it tested the store is closed."""
        saved = {fd: os.dup(fd) for fd in (3,) if _is_open(fd)}
        null = os.open(os.devnull, os.O_RDONLY)
        if null != 3:
            os.dup2(null, 3)
            os.close(null)
        try:
            assert listen_fds({"LISTEN_FDS": "1", "LISTEN_PID": ME, "LISTEN_FDNAMES": "echod-probe"}).fds == []
            assert not _is_open(3)
        finally:
            for fd, copy in saved.items():
                os.dup2(copy, fd, inheritable=False)
                os.close(copy)

    def test_one_that_is_not_open(self) -> None:
        """A descriptor that is not open is listed too; adopting it raises the error."""
        count = max(map(int, os.listdir("/proc/self/fd")))
        fd, name = listen_fds({"LISTEN_FDS": str(count), "LISTEN_PID": ME}).fds[-1]
        assert (fd, name) == (count + 2, "")
        assert not _is_open(fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
