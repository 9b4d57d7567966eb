"""The counters, times and errors of a load, which can be added up."""

from __future__ import annotations

import marshal

from echod.client.histogram import Histogram

_COUNTERS = ("messages", "lost", "outstanding", "unsent", "sent", "received", "connections", "busy")


class Tally:
    """The results of one process, or of all.

    `messages` came back complete and identical; `lost` did not, because their connection failed; for `outstanding` the
    load did not wait any longer; `unsent` were due, but were not sent before the end.  The kernel accepted `sent`
    bytes, of which `received` came back.  `connections` were made, each after one of the times in `connecting`.  For
    `busy` nanoseconds of the load a process was not waiting, so that what arrived meanwhile had to wait.  `latency` has
    the times of messages, `errors` how often each kind of error occurred for which reason, and `examples` the first
    sentence of each kind.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Reset everything."""
        self.messages = self.lost = self.outstanding = self.unsent = 0
        self.sent = self.received = self.connections = self.busy = 0
        self.latency = Histogram()
        self.connecting = Histogram()
        self.errors: dict[tuple[str, str], int] = {}
        self.examples: dict[str, str] = {}

    def count_error(self, kind: str, why: str, sentence: str) -> None:
        """Count an error, of a `kind` in errors.py; `why` is the system's reason, or ""."""
        self.errors[kind, why] = self.errors.get((kind, why), 0) + 1
        self.examples.setdefault(kind, sentence)

    def add(self, other: Tally) -> None:
        """Add the results of `other`."""
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latency.add(other.latency)
        self.connecting.add(other.connecting)
        for error, count in other.errors.items():
            self.errors[error] = self.errors.get(error, 0) + count
        self.examples = {**other.examples, **self.examples}

    def packed(self) -> bytes:
        """The tally as bytes for `unpacked`, at most about 60 KB.

        Both ends are the same program, forked, which is all that marshal requires; struct has no dictionaries, and
        importing json costs a fifth of echoc's start.
        """
        histograms = [vars(histogram) for histogram in (self.latency, self.connecting)]
        counters = [getattr(self, name) for name in _COUNTERS]
        return marshal.dumps((counters, histograms, self.errors, self.examples))


class Result:
    """The result of a load.

    `within` is what came back while the load lasted, for `seconds`; `total` includes what came back afterwards.  `busy`
    is the fraction of that time in which a process was not waiting, on average: near 1, the numbers show the limit of
    echoc, not of the server.  `deaths` are sentences about processes that died.
    """

    def __init__(self, within: Tally, total: Tally, seconds: float, busy: float, deaths: list[str]) -> None:
        self.within, self.total = within, total
        self.seconds, self.busy = seconds, busy
        self.deaths = deaths


def unpacked(data: bytes) -> Tally:
    """The tally in bytes from `Tally.packed`."""
    tally = Tally()
    counters, histograms, tally.errors, tally.examples = marshal.loads(data)
    for name, value in zip(_COUNTERS, counters, strict=True):
        setattr(tally, name, value)
    for histogram, values in zip((tally.latency, tally.connecting), histograms, strict=True):
        vars(histogram).update(values)
    return tally
