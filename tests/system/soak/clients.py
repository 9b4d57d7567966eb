"""The clients of a soak; the machine's own Python runs this file, so it uses the standard library alone.

`python3 clients.py COUNT SEED`: COUNT connections stay, and exchange messages of 1 byte to 3 MB with pauses between
them; one that is lost is replaced.  Beside them a new connection comes every 20 ms, and leaves after one exchange.
Each byte is compared.  `begun` is printed when all that stay have had an echo.  The end of standard input makes each
connection end by a half-close.  Then one JSON object is printed: what the class `Tally` counts.

No load is without a bound: COUNT and `SHORT_MAX` limit the connections at a time, `PATIENCE` each wait.
"""

import asyncio
import json
import os
import random
import resource
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from errno import EAGAIN
from typing import Any

PORT = 10000
UNIX = "\0echod-soak"
KINDS = ("127.0.0.1", "127.0.0.1", "::1", UNIX)
"""The servers' addresses, in turn."""
INTERVAL = 0.02
"""Seconds between two new connections."""
SHORT_MAX = 1000
"""Most connections at a time beside those that stay."""
PATIENCE = 60.0
"""Seconds after which a connection without progress counts as lost."""
POOL = os.urandom(4 << 20)
"""The bytes that are sent; each message is a piece of them."""


@dataclass
class Tally:
    """What is counted."""

    connections: int = 0
    """Connections that were attempted."""
    exchanges: int = 0
    bytes_echoed: int = 0
    wrong_bytes: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list)
    """Connections that could not be established."""
    lost: list[dict[str, Any]] = field(default_factory=list)
    """Connections that ended before their clients had closed them."""
    longest: float = 0.0
    """The longest wait for a connection or an echo, in seconds."""


@dataclass
class Connection:
    """One connection; `name` begins as its `peer` in echod's events."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    name: str
    begun: float
    """When it was established (time.time())."""


class Clients:
    """All clients, and their tally."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.over = asyncio.Event()
        self.served = 0
        """Of those that stay, how many have had an echo."""

    async def run(self, count: int) -> None:
        """Run them until standard input ends."""
        stay = [asyncio.ensure_future(self.staying(KINDS[number % len(KINDS)])) for number in range(count)]
        while self.served < count:
            await asyncio.sleep(0.05)
        print("begun", flush=True)
        asyncio.get_running_loop().add_reader(0, self.over.set)
        short: set[asyncio.Future[None]] = set()
        number = 0
        while not self.over.is_set():
            if len(short) < SHORT_MAX:
                task = asyncio.ensure_future(self.connection(KINDS[number % len(KINDS)], stays=False))
                short.add(task)
                task.add_done_callback(short.discard)
                number += 1
            await asyncio.sleep(INTERVAL)
        await asyncio.gather(*stay, *short)

    async def staying(self, host: str) -> None:
        """A connection that stays, and each one that replaces it."""
        while not self.over.is_set():
            await self.connection(host, stays=True)

    async def connection(self, host: str, *, stays: bool) -> None:
        """One connection, from its beginning to its end, whatever that is."""
        self.tally.connections += 1
        started = time.time()
        try:
            connection = await self.timed(open_connection(host))
        except OSError as error:
            failed = {"name": host, "how": how(error), "begun": started, "at": time.time(), "stays": stays}
            # A reset meets a connection that was established, and whose worker was killed before connect(2) returned.
            (self.tally.lost if failed["how"] == "reset" else self.tally.refused).append(failed)
            await asyncio.sleep(INTERVAL)
            return
        try:
            await self.timed(self.exchange(connection))
            self.served += stays
            while stays and not self.over.is_set():
                await asyncio.sleep(random.uniform(0.1, 0.9))
                await self.timed(self.exchange(connection))
            await asyncio.wait_for(self.end(connection), PATIENCE)
        except (OSError, EOFError) as error:
            lost = {"name": connection.name, "how": how(error), "begun": connection.begun, "at": time.time()}
            self.tally.lost.append(lost | {"stays": stays})
        finally:
            connection.writer.transport.abort()

    async def timed(self, waiting: Any) -> Any:
        """Wait for an echo or a connection, and note how long that took.  Raises TimeoutError after PATIENCE."""
        begun = time.monotonic()
        try:
            return await asyncio.wait_for(waiting, PATIENCE)
        finally:
            self.tally.longest = max(self.tally.longest, time.monotonic() - begun)

    async def exchange(self, connection: Connection) -> None:
        """Send a message and compare its echo."""
        size = int(10 ** random.triangular(0, 6.5, 0))  # many small ones: 28 kB on average
        start = random.randrange(len(POOL) - size)
        sent = POOL[start : start + size]
        connection.writer.write(sent)
        received = await connection.reader.readexactly(size)
        self.tally.exchanges += 1
        self.tally.bytes_echoed += size
        if received != sent:
            self.tally.wrong_bytes += sum(map(int.__ne__, received, sent))

    async def end(self, connection: Connection) -> None:
        """Half-close, and read to the end: each byte that still comes is wrong."""
        connection.writer.write_eof()
        self.tally.wrong_bytes += len(await connection.reader.read())


async def open_connection(host: str) -> Connection:
    """Connect to one of `KINDS`."""
    if host == UNIX:
        sock, name = await connect_unix()
        reader, writer = await asyncio.open_unix_connection(sock=sock)
    else:
        reader, writer = await asyncio.open_connection(host, PORT)
        address, port = writer.get_extra_info("sockname")[:2]
        name = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return Connection(reader, writer, name, time.time())


async def connect_unix() -> tuple[socket.socket, str]:
    """Connect from a process of its own, by whose PID echod's events name the client (SO_PEERCRED, unix(7))."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    while True:
        child = os.fork()
        if not child:
            os._exit(sock.connect_ex(UNIX))
        error = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if not error:
            return sock, f"unix:pid={child},"
        if error != EAGAIN:  # the listener's queue is full: a socket that blocks would wait
            sock.close()
            raise OSError(error, os.strerror(error))
        await asyncio.sleep(INTERVAL)


def how(error: BaseException) -> str:
    """How a connection ended, in a word or two."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "reset"
    if isinstance(error, EOFError):
        return "end"
    if isinstance(error, TimeoutError):
        return "silent"
    return str(error)


def main() -> None:
    """Run the clients, and print their tally."""
    count, seed = map(int, sys.argv[1:])
    random.seed(seed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    clients = Clients()
    asyncio.run(clients.run(count))
    print(json.dumps(asdict(clients.tally)), flush=True)


if __name__ == "__main__":
    main()
