"""What is asked of a load, as all of its processes know it."""

from __future__ import annotations

from echod.client.resolver import SockAddr


class Plan:
    """`connections` to `address` from `source` ("" for any), in messages of `size` bytes.

    `rate` is messages a second over all connections, or None for a closed loop: as fast as the echo comes back.
    Times are nanoseconds: of `duration` the load lasts, every `interval` its numbers are told, for `timeout` a server
    that owes something may be silent, and for `connect_timeout` it may take to connect.
    """

    def __init__(
        self,
        address: SockAddr,
        source: str,
        *,
        connections: int,
        size: int,
        rate: float | None,
        duration: int,
        interval: int,
        timeout: int,
        connect_timeout: int,
    ) -> None:
        self.address, self.source = address, source
        self.connections, self.size, self.rate = connections, size, rate
        self.duration, self.interval = duration, interval
        self.timeout, self.connect_timeout = timeout, connect_timeout
        self.begin = 0
        """When the load begins, by the monotonic clock, which all processes share."""

    def due(self, message: int) -> int:
        """When a message is due; they are counted over all connections, which take turns: no two coincide."""
        messages, seconds = self._messages_in()
        return self.begin - (-message * 10**9 * seconds // messages)

    def due_by(self, now: int) -> int:
        """How many messages are due by then, over all connections; exactly those whose `due` is not later."""
        messages, seconds = self._messages_in()
        return (now - self.begin) * messages // (10**9 * seconds) + 1

    def _messages_in(self) -> tuple[int, int]:
        """The rate as a number of messages in a number of seconds, both whole: rounded one way by `due` and another
        by `due_by`, a message would be due and not be due in the same nanosecond, and be waited for without end."""
        assert self.rate is not None
        return self.rate.as_integer_ratio()
