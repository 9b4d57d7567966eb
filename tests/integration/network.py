"""A network of a daemon's own: a namespace that it is started in, and into which the tests follow it."""

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

_CLONE_NEWNET = 0x40000000


def own_network(*commands: str) -> tuple[str, ...]:
    """A prefix for a daemon's command: its own network namespace, with nothing but the loopback device, in which the
    shell's `commands` are run first.

    Skips the test where that is not permitted.
    """
    if not _may_have_one():
        pytest.skip("this user may not make a network namespace")
    script = " && ".join(("ip link set lo up", *commands, 'exec "$@"'))
    return ("unshare", "--net", "sh", "-c", script, "sh")


@contextlib.contextmanager
def inside(pid: int) -> Iterator[None]:
    """Be in the network namespace of a process; the sockets made here stay there (setns(2))."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path: str) -> None:
        with open(path) as file:
            if libc.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)

    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(f"/proc/{pid}/ns/net")
        try:
            yield
        finally:
            enter(f"/proc/self/fd/{own}")
    finally:
        os.close(own)


@functools.cache
def _may_have_one() -> bool:
    command = ["unshare", "--net", "ip", "link", "set", "lo", "up"]
    return all(map(shutil.which, ("unshare", "ip"))) and subprocess.run(command, capture_output=True).returncode == 0
