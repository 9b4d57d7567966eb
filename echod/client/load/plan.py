"""The plan of a load, which all its processes share."""

from __future__ import annotations

from echod.client.transport import Origin, SockAddr

# Not dataclasses: importing that module takes as long as all the rest of echoc's start.


class Times:
    """The times of a load, in nanoseconds.

    After a `warmup` the load lasts for `duration`, is reported every `interval`, and waits for `drain` for echoes.
    A server may be silent for `timeout` while bytes are outstanding, and take `connect_timeout` to accept a connection.
    """

    def __init__(
        self, duration: int, interval: int, timeout: int, connect_timeout: int, drain: int, warmup: int
    ) -> None:
        self.warmup = warmup
        self.duration, self.interval, self.drain = duration, interval, drain
        self.timeout, self.connect_timeout = timeout, connect_timeout


class Plan:
    """`connections` to `address` from `origin`, with messages of `size` bytes.

    `rate` is messages per second over all connections, or None for a closed loop, which is as fast as the echoes.
    """

    def __init__(
        self, address: SockAddr, origin: Origin, connections: int, size: int, rate: float | None, times: Times
    ) -> None:
        self.address, self.origin = address, origin
        self.connections, self.size, self.rate = connections, size, rate
        # As integers: if `due` and `due_by` rounded differently, a message could be due and not due in the same
        # nanosecond, and the generator would never get past it.
        messages, seconds = (rate or 1.0).as_integer_ratio()
        self._messages, self._in = messages, 10**9 * seconds
        self.times = times
        self.count: int | None = None
        """How many messages a closed loop sends at the most, in all processes."""
        self.measured = 0
        """When the warm-up is over: the times of messages that began before are not recorded."""
        self.begin = 0
        """When the load begins, by the monotonic clock, which is the same in all processes."""

    def due(self, message: int) -> int:
        """When a message is due; messages are numbered over all connections, which take turns, and no two coincide."""
        return self.begin - (-message * self._in // self._messages)

    def due_by(self, now: int) -> int:
        """How many messages are due by `now`, over all connections: exactly those whose `due` is not later."""
        return (now - self.begin) * self._messages // self._in + 1
