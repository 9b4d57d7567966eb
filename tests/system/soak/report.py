"""What a soak has found: each lost connection beside the event that explains it, and the bounds that are broken."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LATE = 30.0
"""Seconds between the loss of a connection and its event, at most: a hung worker is killed only after a while."""
EXPECTED = {"worker_died"}
"""The reasons for closing a connection that a soak gives echod."""
TOLERANCE = 0.25
"""The part by which a figure of `VARYING` may have grown: allocators keep what a burst of connections has needed."""
VARYING = {"memory", "descriptors of systemd", "unix sockets"}
"""Figures that depend on garbage collection or on other programs too; the others must not grow."""

Record = Mapping[str, Any]


@dataclass
class Losses:
    """The connections that were lost, by how they are explained."""

    with_event: list[tuple[Record, Record]] = field(default_factory=list)
    """With the event `connection_closed` that has the client's address."""
    counted: list[Record] = field(default_factory=list)
    """Too young for a copy when their worker died, and so counted by `worker_exited` alone."""
    without_event: list[Record] = field(default_factory=list)

    @property
    def reasons(self) -> Counter[str]:
        """How many were lost for each reason that the events have."""
        return Counter(event["reason"] for _, event in self.with_event)

    @property
    def without_reset(self) -> list[Record]:
        """Those over TCP that ended without a reset, which may look to a client as if its echo were complete.

        On unix sockets the kernel ends a connection so when its worker is killed.
        """
        return [loss for loss in self._all() if loss["how"] == "end" and not loss["name"].startswith("unix:")]

    def _all(self) -> list[Record]:
        return [loss for loss, _ in self.with_event] + self.counted + self.without_event


def explain(lost: Iterable[Record], events: Sequence[Record]) -> Losses:
    """Match the losses with the events; each event explains one loss, and each `worker_exited` as many as it counts."""
    losses, closed = Losses(), defaultdict[str, list[Record]](list)
    uncounted = [[event["at"], event["clients"] - event["kept"]] for event in named(events, "worker_exited")]
    for event in named(events, "connection_closed"):
        # Of a unix client the soak knows the process, but not the user that the service sees (PrivateUsers=).
        closed[event["peer"].partition("uid=")[0]].append(event)
        if event["reason"] == "worker_died":
            _take(uncounted, event["at"])
    for loss in lost:
        found = next((event for event in closed[loss["name"]] if _is_about(event, loss)), None)
        if found is not None:
            losses.with_event.append((loss, found))
            closed[loss["name"]].remove(found)
        elif _take(uncounted, loss["at"]):
            losses.counted.append(loss)
        else:
            losses.without_event.append(loss)
    return losses


def named(events: Iterable[Record], name: str) -> list[Record]:
    """The events of that name."""
    return [event for event in events if event["event"] == name]


def _is_about(event: Record, loss: Record) -> bool:
    """A port, like a PID, is used again after a while, so the time counts too."""
    return bool(loss["begun"] - LATE < event["at"] < loss["at"] + LATE)


def _take(uncounted: list[list[float]], at: float) -> bool:
    """Take one connection from the `worker_exited` nearest to that time; false if none has any left."""
    near = [exit_ for exit_ in uncounted if exit_[1] > 0 and abs(exit_[0] - at) < LATE]
    if near:
        min(near, key=lambda exit_: abs(exit_[0] - at))[1] -= 1
    return bool(near)


@dataclass
class Soak:
    """Everything that is known at the end of a soak."""

    title: str
    steps: Mapping[str, int]
    unexpected: list[str]
    """Commands that ended otherwise than expected."""
    tally: Record
    """What the clients have counted."""
    events: Sequence[Record]
    before: Mapping[str, int]
    after: Mapping[str, int]
    """The figures of what may grow."""

    def broken(self) -> list[str]:
        """The bounds that are broken, a line for each."""
        counts = [f"{name}: {count}, not 0" for name, count, _ in self._counts() if count]
        return counts + list(grown(self.before, self.after))

    def lines(self) -> Iterator[str]:
        """The report."""
        tally, losses = self.tally, self._losses()
        yield self.title
        yield f"  {sum(self.steps.values())} steps: " + ", ".join(f"{n} x {kind}" for kind, n in self.steps.items())
        yield ""
        yield _line("connections", f"{tally['connections']:,}")
        yield _line("messages echoed", f"{tally['exchanges']:,}")
        yield _line("bytes echoed", f"{tally['bytes_echoed']:,}")
        for name, count, examples in self._counts():
            yield _line(name, f"{count:,}", "the bound is 0")
            yield from (f"    {example}" for example in examples[:10])
        reasons = ", ".join(f"{reason} {count}" for reason, count in losses.reasons.items()) or "none"
        yield _line("lost with an event", f"{len(losses.with_event):,}", reasons)
        yield _line("too young for a copy", f"{len(losses.counted):,}", "counted by worker_exited")
        dropped = sum(event["count"] for event in named(self.events, "log_dropped"))
        yield _line("events dropped", f"{dropped:,}", "counted by log_dropped")
        yield _line("longest stall", f"{tally['longest']:.1f} s")
        for name, old in self.before.items():
            yield _line(name, f"{old:,} -> {self.after[name]:,}", "KiB" if name == "memory" else "")
        yield ""
        yield from (f"BROKEN: {line}" for line in self.broken())
        yield "failed" if self.broken() else "passed"

    def _losses(self) -> Losses:
        return explain(self.tally["lost"], self.events)

    def _counts(self) -> list[tuple[str, int, list[str]]]:
        """What must not happen: its name, how often it did, and examples."""
        losses = self._losses()
        unexpected = [event for _, event in losses.with_event if event["reason"] not in EXPECTED]
        incomplete = [event for event in named(self.events, "taken_over") if event["forgotten"] or event["lost"]]
        incomplete += [event for event in named(self.events, "handed_over") if event["left"]]
        counts: list[tuple[str, list[Any]]] = [
            ("connections refused", self.tally["refused"]),
            ("lost without an event", losses.without_event),
            ("lost for another reason", unexpected),
            ("ended without a reset", losses.without_reset),
            ("incomplete hand-overs", incomplete),
            ("bugs", named(self.events, "bug")),
            ("unexpected results", self.unexpected),
        ]
        return [("wrong bytes", self.tally["wrong_bytes"], [])] + [
            (name, len(found), [str(one) for one in found]) for name, found in counts
        ]


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[str]:
    """A line for each figure that has grown by more than it may."""
    for name, old in before.items():
        new = after[name]
        if new > (old * (1 + TOLERANCE) if name in VARYING else old):
            yield f"{name} grew from {old:,} to {new:,}"


def _line(name: str, value: str, note: str = "") -> str:
    return f"{name:<28}{value:>20}  {note}".rstrip()
