"""A notification socket, with the test in the place of systemd."""

import os
import socket
from collections.abc import Iterator

import pytest


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
            name = f"@echod-test-{os.getpid()}"
            sock.bind("\0" + name[1:])
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock
