"""Echo servers for the tests of the client: a faithful one, and one for each fault."""

import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

DEADLINE = 20.0
"""Seconds after which a test that waits for a peer, or a peer that waits for a test, gives up."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER so that closing resets the connection (socket(7))."""

Behaviour = Callable[[socket.socket, threading.Event], None]
"""What a server does with its one connection; the event is set when the test is over."""


@contextmanager
def behaving(accept: Callable[[], socket.socket], behaviour: Behaviour) -> Iterator[None]:
    """Run `behaviour` in a thread, on one connection from `accept`, until the end of the block."""
    over = threading.Event()

    def run() -> None:
        with suppress(OSError), accept() as connection:
            connection.settimeout(DEADLINE)
            behaviour(connection, over)

    thread = threading.Thread(target=run, name="peer")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(DEADLINE)
        assert not thread.is_alive()


@contextmanager
def serving(
    behaviour: Behaviour, family: socket.AddressFamily = socket.AF_INET, buffer: int = 0, port: int = 0
) -> Iterator[int]:
    """A TCP server for one client, on the loopback address; yields its port.

    With `buffer` its receive buffer, and so the TCP window, has that many bytes, or the kernel's minimum.
    """
    with socket.socket(family) as listener:
        if buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
        listener.listen()
        with behaving(lambda: listener.accept()[0], behaviour):
            try:
                yield listener.getsockname()[1]
            finally:
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept() if no client has connected


@contextmanager
def already_reset() -> Iterator[socket.socket]:
    """A connection that the server has reset, which the kernel of the client knows already."""
    with serving(rude) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        assert poll.poll(DEADLINE * 1000)
        yield connection


@contextmanager
def deaf(family: socket.AddressFamily = socket.AF_INET, port: int = 0) -> Iterator[int]:
    """A port of the loopback address that neither accepts nor refuses connections, since its accept queue is full."""
    with socket.socket(family) as listener, socket.socket(family) as first:
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
        listener.listen(0)  # Linux queues one more than this, and silently drops further requests
        first.connect(listener.getsockname())
        assert select.select([listener], [], [], DEADLINE)[0]  # only now is the connection in the queue
        yield listener.getsockname()[1]


@contextmanager
def serving_in_turn(*behaviours: Behaviour, port: int = 0) -> Iterator[int]:
    """A TCP server for one client after another, each with its own behaviour; yields its port.

    When the last client has connected, the port is closed.
    """
    with socket.create_server(("127.0.0.1", port)) as listener, serving_at(listener, *behaviours):
        yield listener.getsockname()[1]


@contextmanager
def serving_at(listener: socket.socket, *behaviours: Behaviour) -> Iterator[None]:
    """The same, on a listening socket."""
    over = threading.Event()

    def run() -> None:
        for left, behaviour in reversed(list(enumerate(reversed(behaviours)))):
            # A client that disconnects ends its own connection only.
            with suppress(OSError), listener.accept()[0] as connection:
                connection.settimeout(DEADLINE)
                if not left:
                    stop()
                behaviour(connection, over)

    def stop() -> None:
        with suppress(OSError):  # it has already stopped
            listener.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=run, name="peers")
    thread.start()
    try:
        yield
    finally:
        over.set()
        stop()
        thread.join(DEADLINE)
        assert not thread.is_alive()


@contextmanager
def serving_all(behaviour: Behaviour, address: str = "127.0.0.1") -> Iterator[int]:
    """A TCP server for any number of simultaneous clients, each in its own thread; yields its port."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def treat(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(DEADLINE)
            behaviour(connection, over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=treat, args=(listener.accept()[0],), name="peer"))
                threads[-1].start()

    with socket.create_server((address, 0)) as listener:
        acceptor = threading.Thread(target=accept, name="acceptor")
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            acceptor.join(DEADLINE)  # first: until it ends it may start another thread
            for thread in threads:
                thread.join(DEADLINE)
            assert not any(thread.is_alive() for thread in (acceptor, *threads))


@contextmanager
def serving_unix(behaviour: Behaviour, path: str) -> Iterator[None]:
    """A unix stream server for one client."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with behaving(lambda: listener.accept()[0], behaviour):
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def paired(behaviour: Behaviour, buffer: int = 0) -> Iterator[socket.socket]:
    """A client's connection to a server in this process, made without a listener."""
    near, far = socket.socketpair()
    if buffer:
        for end in (near, far):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    with near, behaving(lambda: far, behaviour):
        try:
            yield near
        finally:
            with suppress(OSError):  # the test has closed it
                near.shutdown(socket.SHUT_RDWR)  # wakes a peer that still waits for bytes


@contextmanager
def stuck_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A resolver that answers only at the end of the block; yields an event that is set when it gets a query."""

    def getaddrinfo(*arguments: object) -> list[object]:
        asked.set()
        try:
            assert over.wait(DEADLINE)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        finally:
            ended.set()

    asked, over, ended = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        yield asked
    finally:
        over.set()
        assert ended.wait(DEADLINE)


def receive_all(connection: socket.socket) -> bytes:
    """All bytes until the other end half-closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """The next `count` bytes, or fewer if the other end half-closes before."""
    data = b""
    # Not with MSG_WAITALL: a socket with a time-out is non-blocking for the kernel, which then does not wait.
    while len(data) < count and (part := connection.recv(count - len(data))):
        data += part
    return data


def faithful(chunk: int = 65536) -> Behaviour:
    """Read at most `chunk` bytes, return them, repeat: a lock-step echo server."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        while data := connection.recv(chunk):
            connection.sendall(data)

    return behave


def altering(change: Callable[[bytes], bytes]) -> Behaviour:
    """Read everything until the end, and only then return something."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(change(receive_all(connection)))

    return behave


def returning(count: int) -> Behaviour:
    """Return the first `count` bytes, read the rest, and close cleanly."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(receive_exactly(connection, count))
        receive_all(connection)

    return behave


def resetting(count: int) -> Behaviour:
    """Return the first `count` bytes, and reset the connection when everything has arrived."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(receive_exactly(connection, count))
        receive_all(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    return behave


def answering(*answers: Callable[[bytes], bytes], size: int = 56) -> Behaviour:
    """Answer one message of `size` bytes after another, each with its own function, and then close the connection."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        for answer in answers:
            connection.sendall(answer(receive_exactly(connection, size)))

    return behave


def leaving(patience: float) -> Behaviour:
    """A lock-step echo server that closes a connection when nothing has arrived for `patience` seconds after the first
    message."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(connection.recv(65536))  # with a longer time-out, for a client that is slow to send it
        connection.settimeout(patience)
        with suppress(TimeoutError):
            faithful()(connection, over)

    return behave


def followed_by(first: Behaviour, second: Behaviour) -> Behaviour:
    """Behave like `first`, and then like `second`."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        first(connection, over)
        second(connection, over)

    return behave


def mute(connection: socket.socket, over: threading.Event) -> None:
    """Read everything and return nothing."""
    connection.settimeout(DEADLINE)
    receive_all(connection)


def rude(connection: socket.socket, over: threading.Event) -> None:
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def silent(connection: socket.socket, over: threading.Event) -> None:
    """Accept, and do nothing more."""
    over.wait(DEADLINE)


def endless(connection: socket.socket, over: threading.Event) -> None:
    """Return everything, but never close the connection."""
    faithful()(connection, over)
    over.wait(DEADLINE)


def greeting(connection: socket.socket, over: threading.Event) -> None:
    """Speak first, as a mail server does."""
    connection.sendall(b"220 ready\r\n")
    over.wait(DEADLINE)


def stepping(size: int, printed: int) -> Behaviour:
    """Return `size` bytes at a time, each piece when the previous one was read from the descriptor `printed`.

    TCP keeps no boundaries: pieces sent one after another may be received as one.
    """

    def behave(connection: socket.socket, over: threading.Event) -> None:
        message = receive_all(connection)
        for start in range(0, len(message), size):
            piece = message[start : start + size]
            connection.sendall(piece)
            assert os.read(printed, 2 * size) == piece

    return behave


@contextmanager
def feeding(data: bytes) -> Iterator[int]:
    """The reading end of a pipe that a thread fills with `data` and then closes."""
    reading, writing = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), open(writing, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed, name="feeder")
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join(DEADLINE)
        assert not thread.is_alive()


@contextmanager
def standing_in(number: int, descriptor: int | None) -> Iterator[None]:
    """Make `descriptor` number 0, 1 or 2 of this process, or close that number, until the end of the block."""
    saved = os.dup(number)
    if descriptor is None:
        os.close(number)
    else:
        os.dup2(descriptor, number)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal: the end that a person looks at, and the end that a program writes to (pty(7))."""
    screen, program = os.openpty()
    try:
        yield screen, program
    finally:
        os.close(screen)
        os.close(program)


def seen(screen: int, count: int) -> bytes:
    """At least the next `count` bytes on a terminal's screen, where they may arrive in pieces."""
    text = b""
    while len(text) < count:
        assert select.select([screen], [], [], DEADLINE)[0], text
        text += os.read(screen, 1000)
    return text
