"""Fixtures for the tests of the client."""

import socket

import pytest

from tests.unit.client.clock import Clock


@pytest.fixture
def ipv6() -> None:
    """Skip the test where the kernel has no IPv6 on its loopback interface."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error.strerror}")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The client's clock under the test's control."""
    return Clock(monkeypatch)
