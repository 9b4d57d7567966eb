"""features: a sandbox without AF_INET, which no tool of the integration tests can forbid by itself."""

import errno
import os
from typing import NoReturn

import pytest

from echod.net import features
from echod.net.sockopts import SocketOptions


def test_without_internet_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only systemd can open internet sockets (socket-activated.conf), their options are not tried."""

    def forbidden() -> NoReturn:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(features, "_try_exclusive", lambda: None)
    monkeypatch.setattr("echod.net.features.socket.socket", forbidden)
    assert list(features.lacks(SocketOptions(600, 75, 9), limits_sources=False)) == []
