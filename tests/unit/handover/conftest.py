"""Fixtures for the tests of handing over."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.unit.handover.queues import Queue


@pytest.fixture
def queue() -> Iterator[Queue]:
    """A queue without messages."""
    with ExitStack() as stack:
        yield Queue(stack)
