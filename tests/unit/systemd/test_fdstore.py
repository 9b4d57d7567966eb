"""fdstore: the messages that store and remove descriptors, and the test whether systemd stores them."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from echod.systemd import fdstore, notify
from echod.systemd.fdstore import DescriptorStore
from echod.systemd.notify import Notifier


@pytest.fixture
def notifier(systemd: socket.socket) -> Iterator[Notifier]:
    """A notifier of that socket, which never waits."""
    with pytest.MonkeyPatch.context() as patch, closing(Notifier(os.environ)) as notifier:
        patch.setattr(notify, "SEND_WAIT", 0)
        patch.setattr(fdstore, "ANSWER_WAIT", 0)
        yield notifier


def received(systemd: socket.socket) -> tuple[bytes, int]:
    """The next message, and the number of its descriptors."""
    data, fds, _, _ = socket.recv_fds(systemd, 4096, 253)
    for fd in fds:
        os.close(fd)
    return data, len(fds)


def test_putting_and_removing(systemd: socket.socket, notifier: Notifier) -> None:
    """Descriptors are stored under a name, with FDPOLL=0, and removed by that name."""
    store = DescriptorStore(notifier)
    store.put("echod-test", [0, 1])
    store.remove("echod-test")
    assert received(systemd) == (b"FDSTORE=1\nFDNAME=echod-test\nFDPOLL=0", 2)
    assert received(systemd) == (b"FDSTOREREMOVE=1\nFDNAME=echod-test", 0)
    assert notifier.failed is None


def test_more_than_a_message_holds(systemd: socket.socket, notifier: Notifier) -> None:
    """Many descriptors are sent in several messages, with at most 253 in each (unix(7))."""
    DescriptorStore(notifier).put("echod-test", [0] * 254)
    assert [received(systemd)[1] for _ in range(2)] == [253, 1]


def test_none(systemd: socket.socket, notifier: Notifier) -> None:
    """Without descriptors no message is sent."""
    DescriptorStore(notifier).put("echod-test", [])
    with pytest.raises(BlockingIOError):
        systemd.recv(4096)


def test_a_full_queue(systemd: socket.socket, notifier: Notifier) -> None:
    """If systemd's queue is full, the message is not sent, and the error is kept."""
    store = DescriptorStore(notifier)
    while notifier.failed is None:
        store.remove("echod-test")
    assert isinstance(notifier.failed, BlockingIOError)
    assert not store.keeps()


def test_no_answer(systemd: socket.socket, notifier: Notifier) -> None:
    """Without an answer in time, `keeps` is false."""
    assert not DescriptorStore(notifier).keeps()
    assert received(systemd) == (b"FDSTORE=1\nFDNAME=echod-probe\nFDPOLL=0", 1)
    assert received(systemd) == (b"BARRIER=1", 1)


def test_without_systemd() -> None:
    """Without systemd, nothing is stored, and nothing fails."""
    notifier = Notifier({})
    store = DescriptorStore(notifier)
    store.put("echod-test", [0])
    store.remove("echod-test")
    assert not store.keeps()
    assert notifier.failed is None
