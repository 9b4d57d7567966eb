"""The servers to compare with: the best ordinary echo server on asyncio's own loop, or on uvloop's (`uvloop`).

A Protocol, not streams: `data_received` writes straight to the transport, which tries to send at once. Both loops set
TCP_NODELAY on what they accept by themselves (asyncio since 3.6). Prints its port and serves 127.0.0.1 until killed.
"""

import asyncio
import sys
from typing import cast


class Echo(asyncio.Protocol):
    """Return what comes in; the loop closes after end-of-file once everything is written."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods, not by its class

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self.transport.write(data)


async def serve() -> None:
    """Listen on a port that the kernel chooses, print it, and serve for ever."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Run on the requested loop."""
    if sys.argv[1:] == ["uvloop"]:
        import uvloop

        uvloop.run(serve())
    else:
        asyncio.run(serve())


if __name__ == "__main__":
    main()
