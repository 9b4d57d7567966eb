"""What a load has seen, as numbers that can be added up."""

from __future__ import annotations

import marshal

from echod.client.histogram import Histogram

_COUNTERS = ("messages", "lost", "sent", "received", "connections", "busy")


class Tally:
    """Counters of one process, or of all.

    `messages` came back whole and right, `lost` did not; `sent` bytes the kernel took, of which `received` came back;
    `connections` were made, each after one of the times in `connecting`; for `busy` nanoseconds of the load a process
    did not wait, so that what came meanwhile had to.  In `latency` are the times of messages, in
    `errors` how often each kind of error was seen with what reason, and in `examples` the first sentence of each kind.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.messages = self.lost = self.sent = self.received = self.connections = self.busy = 0
        self.latency = Histogram()
        self.connecting = Histogram()
        self.errors: dict[tuple[str, str], int] = {}
        self.examples: dict[str, str] = {}

    def count_error(self, kind: str, why: str, sentence: str) -> None:
        """Count an error of a `kind` of faults.py; `why` is the system's reason where there is one, or ""."""
        self.errors[kind, why] = self.errors.get((kind, why), 0) + 1
        self.examples.setdefault(kind, sentence)

    def add(self, other: Tally) -> None:
        """Count all that `other` counted."""
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latency.add(other.latency)
        self.connecting.add(other.connecting)
        for error, count in other.errors.items():
            self.errors[error] = self.errors.get(error, 0) + count
        self.examples = {**other.examples, **self.examples}

    def packed(self) -> bytes:
        """The tally as bytes for `unpacked`, at most some 60 KB.

        Both ends are one program, forked, which is all that marshal asks; struct has no dictionaries, and json costs
        as much to import as a fifth of echoc's start.
        """
        histograms = [vars(histogram) for histogram in (self.latency, self.connecting)]
        counters = [getattr(self, name) for name in _COUNTERS]
        return marshal.dumps((counters, histograms, self.errors, self.examples))


def unpacked(data: bytes) -> Tally:
    """The tally in what `Tally.packed` returned."""
    tally = Tally()
    counters, histograms, tally.errors, tally.examples = marshal.loads(data)
    for name, value in zip(_COUNTERS, counters, strict=True):
        setattr(tally, name, value)
    for histogram, values in zip((tally.latency, tally.connecting), histograms, strict=True):
        vars(histogram).update(values)
    return tally
