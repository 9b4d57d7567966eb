"""The counters and times of a load, which can be added up."""

from typing import Any

from echod.client.load.tally import Tally, unpacked


def seen(*latencies: int) -> Tally:
    """A tally with something in every field."""
    tally = Tally()
    for latency in latencies:
        tally.messages += 1
        tally.lost += 2
        tally.sent += 300
        tally.received += 100
        tally.connections += 4
        tally.busy += 500
        tally.starved += 550
        tally.stopped += 600
        tally.outstanding += 7
        tally.unsent += 8
        tally.late.record(latency // 3)
        tally.latency.record(latency)
        tally.connecting.record(latency // 2)
        tally.count_error("broken", "Connection reset by peer", f"after {latency} ns", f"127.0.0.1:{latency % 60_000}")
        path = {"rtt": latency / 1e9, "retransmits": 1, "lost": 0, "mss": 1448 + latency % 3, "pmtu": 1500}
        tally.count_path(path, ("127.0.0.1", latency % 60_000))
    return tally


def contents(tally: Tally) -> dict[str, Any]:
    """Everything in a tally."""
    return vars(tally) | {
        "latency": vars(tally.latency),
        "connecting": vars(tally.connecting),
        "late": vars(tally.late),
        "rtt": vars(tally.rtt),
    }


def test_add() -> None:
    """The sum of two tallies is the tally of everything; of each kind of error the first sentence is kept."""
    total = seen(5, 10**10)
    total.add(seen(70_000))
    assert contents(total) == contents(seen(5, 10**10, 70_000))
    assert total.errors == {("broken", "Connection reset by peer"): 3}
    assert total.examples == {"broken": ("after 5 ns", "127.0.0.1:5")}
    assert total.ports == {"127.0.0.1": (5, 40_000)}


def test_packed() -> None:
    """A tally survives packing and unpacking, including sums of squares beyond 64 bits."""
    tally = seen(10**12, 10**12)
    assert contents(unpacked(tally.packed())) == contents(tally)


def test_packet_size() -> None:
    """The largest tally fits into a packet of a unix socket, whose buffer is 208 KiB (socket(7))."""
    tally = Tally()
    for bits in range(48):
        for part in range(128):
            tally.latency.record((1 << bits) + (part << bits >> 7))
            tally.connecting.record((1 << bits) + (part << bits >> 7))
            tally.late.record((1 << bits) + (part << bits >> 7))
    assert len(tally.packed()) < 100_000


def test_clear() -> None:
    """A cleared tally equals a new one."""
    tally = seen(5)
    tally.clear()
    assert contents(tally) == contents(Tally())
