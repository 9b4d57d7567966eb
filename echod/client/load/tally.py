"""The counters, times and errors of a load, which can be added up."""

from __future__ import annotations

import marshal

from echod.client.histogram import Histogram

_COUNTERS = (
    "messages",
    "lost",
    "outstanding",
    "unsent",
    "sent",
    "received",
    "connections",
    "busy",
    "starved",
    "stopped",
    "retransmits",
    "segments_lost",
)
_HISTOGRAMS = ("latency", "connecting", "late", "rtt")


class Tally:
    """The results of one process, or of all.

    `messages` came back complete and identical; `lost` did not, because their connection failed; for `outstanding` the
    load did not wait any longer; `unsent` were due, but were not sent before the end.  The kernel accepted `sent`
    bytes, of which `received` came back.  `connections` were made, each after one of the times in `connecting`.  For
    `busy` nanoseconds of the load a processor worked for this process, for `starved` it was ready to run and had no
    processor, and for `stopped` it neither ran nor waited, for 50 ms or more each time.  `latency` has the times of
    messages, and `late` those by which it sent messages later than they were due, although the kernel had room for
    them.  `errors` is how often each kind of error occurred for which reason, and `examples` the first sentence of each
    kind, with our end of the connection.  Of the connections that have ended, `rtt` has the kernel's round-trip times,
    `retransmits` and `segments_lost` are sums, `least` are the least MSS and path MTU, and `ports` the lowest and
    highest local port of each local address.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Reset everything."""
        self.messages = self.lost = self.outstanding = self.unsent = 0
        self.sent = self.received = self.connections = self.busy = self.starved = self.stopped = 0
        self.latency = Histogram()
        self.connecting = Histogram()
        self.late = Histogram()
        self.rtt = Histogram()
        self.retransmits = self.segments_lost = 0
        self.least: dict[str, float] = {}
        self.ports: dict[str, tuple[int, int]] = {}
        self.errors: dict[tuple[str, str], int] = {}
        self.examples: dict[str, tuple[str, str]] = {}

    def forget_times(self, with_connecting: bool) -> None:
        """Reset the times, but not the counters."""
        self.latency, self.late = Histogram(), Histogram()
        self.busy = self.starved = self.stopped = 0
        if with_connecting:
            self.connecting = Histogram()

    def count_error(self, kind: str, why: str, sentence: str, local: str) -> None:
        """Count an error, of a `kind` in errors.py; `why` is the system's reason, or "", and `local` our end, or ""."""
        self.errors[kind, why] = self.errors.get((kind, why), 0) + 1
        self.examples.setdefault(kind, (sentence, local))

    def count_path(self, fields: dict[str, float], local: tuple[str, int]) -> None:
        """Add what TCP knows about a connection at its end (transport.statistics), and our end of it."""
        self.rtt.record(round(fields["rtt"] * 1e9))
        self.retransmits += int(fields["retransmits"])
        self.segments_lost += int(fields["lost"])
        for name in ("mss", "pmtu"):
            self._add_least(name, fields[name])
        self._add_ports(local[0], local[1], local[1])

    def _add_least(self, name: str, value: float) -> None:
        if value < self.least.get(name, value + 1):
            self.least[name] = value

    def _add_ports(self, address: str, low: int, high: int) -> None:
        known = self.ports.get(address)
        if known is None:
            self.ports[address] = low, high
        elif low < known[0] or high > known[1]:
            self.ports[address] = min(low, known[0]), max(high, known[1])

    def add(self, other: Tally) -> None:
        """Add the results of `other`."""
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _HISTOGRAMS:
            getattr(self, name).add(getattr(other, name))
        for error, count in other.errors.items():
            self.errors[error] = self.errors.get(error, 0) + count
        self.examples = {**other.examples, **self.examples}
        for name, value in other.least.items():
            self._add_least(name, value)
        for address, (low, high) in other.ports.items():
            self._add_ports(address, low, high)

    def packed(self) -> bytes:
        """The tally as bytes for `unpacked`, at most about 120 KB.

        Both ends are the same program, forked, which is all that marshal requires; struct has no dictionaries, and
        importing json costs a fifth of echoc's start.
        """
        histograms = [vars(getattr(self, name)) for name in _HISTOGRAMS]
        counters = [getattr(self, name) for name in _COUNTERS]
        return marshal.dumps((counters, histograms, self.errors, self.examples, self.least, self.ports))


class Result:
    """The result of a load.

    `within` is what came back while the load lasted, for `seconds`; `total` includes what came back afterwards.  `busy`
    is the average fraction of that time in which a processor worked for a process, as the kernel counts it, and
    `starved` the fraction in which a process waited for a processor: if both together are near 1, the numbers show the
    limit of echoc, not of the server.  `deaths` are sentences about processes that died.
    """

    def __init__(self, within: Tally, total: Tally, seconds: float, processes: int, deaths: list[str]) -> None:
        self.within, self.total = within, total
        self.seconds = seconds
        available = seconds * processes * 1e9
        self.busy = min(total.busy / available, 1.0) if available else 0.0
        self.starved = min(total.starved / available, 1.0) if available else 0.0
        self.deaths = deaths


def unpacked(data: bytes) -> Tally:
    """The tally in bytes from `Tally.packed`."""
    tally = Tally()
    counters, histograms, tally.errors, tally.examples, tally.least, tally.ports = marshal.loads(data)
    for name, value in zip(_COUNTERS, counters, strict=True):
        setattr(tally, name, value)
    for name, values in zip(_HISTOGRAMS, histograms, strict=True):
        vars(getattr(tally, name)).update(values)
    return tally
