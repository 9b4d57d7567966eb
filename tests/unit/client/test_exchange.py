"""echod.client.exchange, against real servers, faithful and faulty."""

import errno
import itertools
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.client.errors import (
    BrokenConnectionError,
    EchoError,
    LateError,
    MismatchError,
    ShortfallError,
    SilenceError,
    SurplusError,
    UntestableError,
)
from echod.client.exchange import Terms, exchange
from tests.unit.client.clock import Clock
from tests.unit.client.peers import (
    DEADLINE,
    RESET,
    Behaviour,
    already_reset,
    altering,
    endless,
    faithful,
    feeding,
    greeting,
    paired,
    receive_all,
    receive_exactly,
    resetting,
    returning,
    serving,
    silent,
)

MESSAGE = b"This is the message.  It will be repeated."
SOON = 0.2  # the time-out, in seconds, for a server that stays silent


class Talk:
    """One exchange and what its callbacks saw."""

    def __init__(self, on_chunk: Callable[[], None] = lambda: None) -> None:
        self.sent: list[memoryview] = []
        self.received: list[bytes] = []
        self._on_chunk = on_chunk

    def run(
        self,
        connection: socket.socket,
        source: bytes | int,
        timeout: float = DEADLINE,
        *,
        half_close: bool = True,
        deadline: float = math.inf,
    ) -> int:
        """Exchange `source` over `connection`."""
        terms = Terms(timeout, deadline, half_close)
        return exchange(connection, source, terms, self.sent.append, self._on_received)

    def _on_received(self, data: bytes) -> None:
        self.received.append(data)
        self._on_chunk()

    @property
    def echo(self) -> bytes:
        """All that came back."""
        return b"".join(self.received)


@pytest.fixture
def talk() -> Talk:
    """An exchange that has not begun."""
    return Talk()


def talk_to(behaviour: Behaviour, source: bytes | int, timeout: float = DEADLINE) -> int:
    """Exchange `source` with a TCP server of that behaviour."""
    with serving(behaviour) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        return Talk().run(connection, source, timeout)


def scrambled(count: int) -> bytes:
    """Bytes in which every neighbourhood is unique, so that a lost or repeated one is found."""
    return b"".join(number.to_bytes(4, "big") for number in range(count // 4))


def test_identical(talk: Talk) -> None:
    """The bytes that came back are counted, and each chunk sent and received is passed on."""
    with serving(faithful()) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        assert talk.run(connection, MESSAGE) == len(MESSAGE)
    assert talk.sent == [MESSAGE]
    assert talk.echo == MESSAGE


def test_nothing() -> None:
    """The echo of an empty message is the end of the connection, and nothing else."""
    assert talk_to(faithful(), b"") == 0


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 1_000_000])
def test_from_a_pipe(size: int, talk: Talk) -> None:
    """A pipe is sent until its end, in order."""
    data = os.urandom(size)
    with feeding(data) as pipe, paired(faithful()) as connection:
        assert talk.run(connection, pipe) == size
    assert b"".join(talk.sent) == talk.echo == data


def test_from_a_file(tmp_path: Path) -> None:
    """A file is sent until its end."""
    (tmp_path / "file").write_bytes(scrambled(200_000))
    with open(tmp_path / "file", "rb") as file:
        assert talk_to(faithful(), file.fileno()) == 200_000


def test_server_that_reads_everything_first() -> None:
    """A server that returns nothing until it has read 8 MiB does not deadlock the exchange."""
    with feeding(scrambled(8 * 1024 * 1024)) as pipe:
        assert talk_to(altering(bytes), pipe) == 8 * 1024 * 1024


def test_server_with_tiny_buffers() -> None:
    """Nor does a lock-step server with minimal buffers, which reads 100 bytes at a time."""
    with (
        feeding(scrambled(10_000)) as pipe,
        serving(faithful(100), buffer=1) as port,
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        assert Talk().run(connection, pipe) == 10_000


def test_send_buffer_full_from_the_start() -> None:
    """A connection whose send buffer is full at first is waited for."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        assert full.wait(DEADLINE)
        receive_exactly(connection, ballast)
        faithful()(connection, over)

    full = threading.Event()
    ballast = 0
    with paired(behave) as connection:
        connection.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ballast += connection.send(b"x")
        full.set()
        assert Talk().run(connection, MESSAGE) == len(MESSAGE)


@pytest.mark.parametrize("offset", [0, 20, 41])
def test_changed_byte(offset: int, talk: Talk) -> None:
    """A changed byte is reported with its offset and both values, after it was passed on."""
    wrong = bytearray(MESSAGE)
    wrong[offset] ^= 0x20
    with paired(altering(lambda _: bytes(wrong))) as connection, pytest.raises(MismatchError) as caught:
        talk.run(connection, MESSAGE)
    assert caught.value.offset == offset
    assert caught.value.sent == MESSAGE[offset:][:32]
    assert caught.value.came == wrong[offset:][:32]
    assert talk.echo == wrong


def test_changed_byte_far_in() -> None:
    """The offset counts from the beginning of the stream, also after megabytes and in bytes stored on disk."""
    offset = 5_000_001

    def change(data: bytes) -> bytes:
        return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]

    data = scrambled(6_000_000)
    with feeding(data) as pipe, pytest.raises(MismatchError, match="only that byte was changed") as caught:
        talk_to(altering(change), pipe)
    assert caught.value.offset == offset
    assert caught.value.sent == data[offset : offset + 32]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:9] + data[10:], "it looks as if 1 byte had been dropped there"),
        (lambda data: data[:9] + b"t" + data[9:], "it looks as if 1 byte had been inserted there"),
        (lambda data: data[:9] + data[8:], "it looks as if 1 byte had been inserted there"),
        (lambda data: data[:5] + data[15:], "it looks as if 10 bytes had been dropped there"),
    ],
    ids=["dropped", "inserted", "repeated", "hole"],
)
def test_shifted(change: Callable[[bytes], bytes], words: str) -> None:
    """Bytes dropped or inserted on the way are recognised by the bytes that follow."""
    with pytest.raises(MismatchError, match=words):
        talk_to(altering(change), MESSAGE)


def test_missing_end() -> None:
    """An echo that ends early is reported with the numbers of bytes received and missing."""
    with pytest.raises(ShortfallError, match="too early: 41 of 42 bytes sent came back, 1 missing from byte 41 on"):
        talk_to(altering(lambda data: data[:-1]), MESSAGE)


def test_stops_half_way() -> None:
    """So is a server that reads everything and returns half."""
    with pytest.raises(ShortfallError, match="20 of 42 bytes sent came back, 22 missing from byte 20 on"):
        talk_to(returning(20), MESSAGE)


def test_extra_bytes(talk: Talk) -> None:
    """Surplus bytes after the echo are reported, with their values."""
    with (
        paired(altering(lambda data: data + b"extra")) as connection,
        pytest.raises(SurplusError, match=r'at least 5 bytes too many, from byte 42 on \(counted from 0\): "extra"'),
    ):
        talk.run(connection, MESSAGE)
    assert talk.echo == MESSAGE + b"extra"


def test_greeting() -> None:
    """Bytes received while the input is still silent were sent before anything."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(SurplusError, match='the server sent 11 bytes before anything was sent: "220 ready'):
            talk_to(greeting, reading)
    finally:
        os.close(reading)
        os.close(writing)


def test_greeting_has_arrived() -> None:
    """So were bytes that had arrived before the first byte was sent; then nothing is sent."""
    sent: list[memoryview] = []
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"220 ready\r\n")
        with pytest.raises(SurplusError, match="before anything was sent"):
            exchange(near, MESSAGE, Terms(DEADLINE), sent.append, lambda data: None)
    assert not sent


def test_closed_while_input_is_open() -> None:
    """A server that closes before the end of the input is reported at once, not at the next input."""
    reading, writing = os.pipe()
    try:
        os.write(writing, MESSAGE)
        with pytest.raises(ShortfallError, match="before the end of the input: all 42 bytes sent came back"):
            talk_to(lambda connection, over: connection.sendall(receive_exactly(connection, 42)), reading)
    finally:
        os.close(reading)
        os.close(writing)


def test_reset_half_way(talk: Talk) -> None:
    """A reset is reported as one, with the number of bytes that had come back."""
    with (
        serving(resetting(20)) as port,
        socket.create_connection(("127.0.0.1", port)) as connection,
        pytest.raises(BrokenConnectionError, match="Connection reset by peer") as caught,
    ):
        talk.run(connection, MESSAGE)
    assert (caught.value.sent, caught.value.received) == (42, len(talk.echo))
    assert MESSAGE.startswith(talk.echo)


def test_reset_while_sending() -> None:
    """A reset that makes a send fail is reported when nothing is left to read."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        receive_exactly(connection, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    with pytest.raises(BrokenConnectionError) as caught:
        talk_to(behave, bytes(64 * 1024 * 1024))
    assert 0 < caught.value.sent < 64 * 1024 * 1024
    assert caught.value.received == 0


def test_reset_before_half_close() -> None:
    """A connection on which even the half-close fails is reported as broken."""
    with already_reset() as connection, pytest.raises(BrokenConnectionError, match="Connection reset by peer"):
        Talk().run(connection, b"")


def test_silent_server() -> None:
    """The wait for a server that never answers ends with the time-out."""
    with pytest.raises(
        SilenceError, match=r"was silent for 0.2 s: all acknowledged, nothing came back: the server is silent$"
    ):
        talk_to(silent, MESSAGE, SOON)


def test_silent_server_that_takes_nothing() -> None:
    """So does the wait for a server that stops reading."""
    with pytest.raises(SilenceError, match="was silent for"):
        talk_to(silent, bytes(64 * 1024 * 1024), SOON)


def hurried(clock: Clock) -> Talk:
    """An exchange during which the clock stands still until something has come back, and then leaps at each reading."""

    def hurry() -> None:
        clock.on_look = lambda: clock.leap(DEADLINE)

    return Talk(hurry)


def test_server_without_end(clock: Clock) -> None:
    """A complete echo without the end of the connection is an error, since more bytes might follow."""
    with (
        paired(endless) as connection,
        pytest.raises(SilenceError, match=r"did not close the connection within .* all 42 bytes sent came back"),
    ):
        hurried(clock).run(connection, MESSAGE)


@pytest.mark.parametrize("message", [MESSAGE, b""])
def test_without_half_close(message: bytes, talk: Talk) -> None:
    """Without a half-close the last byte of the echo ends the exchange, and our side stays open."""
    with paired(faithful()) as connection:
        assert talk.run(connection, message, half_close=False) == len(message)
        connection.sendall(b"more")  # EPIPE if it were not open
        connection.close()


def test_without_half_close_from_a_pipe() -> None:
    """The echo of the first part of the input does not end the exchange."""
    data = scrambled(1_000_000)
    with feeding(data) as pipe, paired(faithful()) as connection:
        assert Talk().run(connection, pipe, half_close=False) == len(data)
        connection.close()


def test_surplus_without_half_close() -> None:
    """Surplus bytes that have arrived with the last byte of the echo are found."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(receive_exactly(connection, len(MESSAGE)))
        assert whole.wait(DEADLINE)
        connection.sendall(b"extra")
        surplus.set()
        over.wait(DEADLINE)

    def on_received(data: bytes) -> None:
        whole.set()
        assert surplus.wait(DEADLINE)

    whole, surplus = threading.Event(), threading.Event()
    with paired(behave) as connection, pytest.raises(SurplusError, match='at least 5 bytes too many, .*"extra"'):
        exchange(connection, MESSAGE, Terms(DEADLINE, half_close=False), lambda data: None, on_received)


def test_missing_end_without_half_close() -> None:
    """A server that closes before the echo is complete is reported without a half-close too."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(receive_exactly(connection, len(MESSAGE))[:20])

    with paired(behave) as connection, pytest.raises(ShortfallError, match="22 missing from byte 20 on"):
        Talk().run(connection, MESSAGE, half_close=False)


def test_late() -> None:
    """A server that is never silent for long, but does not finish by the deadline, is late."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        message = receive_all(connection)
        while not over.wait(SOON / 10):
            connection.sendall(message[:1])

    with paired(behave) as connection, pytest.raises(LateError):
        Talk().run(connection, bytes(1_000_000), deadline=time.monotonic() + SOON)


def test_late_end(clock: Clock) -> None:
    """So is one that has returned everything and does not close."""
    with (
        paired(endless) as connection,
        pytest.raises(LateError, match="did not close the connection in time: all 42 bytes"),
    ):
        hurried(clock).run(connection, MESSAGE, deadline=time.monotonic() + DEADLINE)


def test_late_from_the_start() -> None:
    """After the deadline nothing is waited for."""
    with paired(silent) as connection, pytest.raises(LateError, match="0 of 42 bytes"):
        Talk().run(connection, MESSAGE, deadline=0)


def test_silent_server_under_trickling_input() -> None:
    """Bytes that the kernel buffers are not progress of the server: an endless input does not hide its silence."""
    reading, writing = os.pipe()
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(SOON / 20):
            os.write(writing, b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with pytest.raises(SilenceError):
            talk_to(silent, reading, SOON)
    finally:
        stop.set()
        thread.join()
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("last", [MESSAGE, b""], ids=["before more", "before the end"])
def test_input_slower_than_the_timeout(last: bytes, clock: Clock) -> None:
    """A pause of the input does not count as the server's silence when everything sent has come back."""
    reading, writing = os.pipe()
    paused = threading.Event()

    def behave(connection: socket.socket, over: threading.Event) -> None:
        faithful()(connection, over)
        over.wait(0.05)  # so that the exchange has to wait for the end

    def feed() -> None:
        os.write(writing, MESSAGE)
        assert paused.wait(DEADLINE)
        os.write(writing, last)
        os.close(writing)

    def pause() -> None:
        if not paused.is_set():
            clock.on_look = look

    def look() -> None:
        clock.leap(2 * DEADLINE)
        if next(looks) == 2:  # the first is after the echo, the second before the wait for more input
            clock.on_look = lambda: None
            paused.set()

    looks = itertools.count(1)
    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with paired(behave) as connection:
            assert Talk(pause).run(connection, reading) == len(MESSAGE + last)
    finally:
        thread.join()
        os.close(reading)


def test_server_slower_than_the_timeout(clock: Clock) -> None:
    """A server that keeps reading is not silent, even if the whole takes longer than the time-out."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        taken = b""
        while len(taken) < len(data):
            taken += connection.recv(4096)
            clock.leap(DEADLINE / 10)  # the whole takes longer than the time-out, each step much less
        connection.sendall(taken + receive_all(connection))

    data = scrambled(4096 * 60)
    with paired(behave, buffer=4096) as connection:
        assert Talk().run(connection, data) == len(data)


def test_input_that_another_reader_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """A non-blocking pipe that is empty when it is read, because another reader was faster, is waited for."""
    read, taken = os.read, [BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")]

    def late_read(descriptor: int, count: int) -> bytes:
        if taken:
            raise taken.pop()
        return read(descriptor, count)

    monkeypatch.setattr(os, "read", late_read)
    with feeding(MESSAGE) as source:
        assert talk_to(faithful(), source) == len(MESSAGE)
    assert not taken


def test_unreadable_input(tmp_path: Path) -> None:
    """An unreadable input is reported as untestable."""
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(UntestableError, match=r"^cannot read the input: Is a directory$"):
            talk_to(faithful(), directory)
    finally:
        os.close(directory)


@given(sent=st.binary(max_size=200), returned=st.binary(max_size=200), same=st.booleans())
def test_verdict(sent: bytes, returned: bytes, same: bool) -> None:
    """Only an identical echo is accepted, and otherwise the first wrong byte is reported."""
    if same:
        returned = sent
    pairs = zip(sent, returned, strict=False)
    shared = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(sent), len(returned)))
    verdict: int | EchoError
    with paired(altering(lambda _: returned)) as connection:
        try:
            verdict = Talk().run(connection, sent)
        except EchoError as error:
            verdict = error
    if returned == sent:
        assert verdict == len(sent)
    elif shared == len(sent):
        assert isinstance(verdict, SurplusError)
        assert (verdict.offset, verdict.came) == (shared, returned[shared:])
    elif shared == len(returned):
        assert isinstance(verdict, ShortfallError)
        assert (verdict.sent, verdict.received) == (len(sent), shared)
    else:
        assert isinstance(verdict, MismatchError)
        assert (verdict.offset, verdict.came) == (shared, returned[shared:][:32])
