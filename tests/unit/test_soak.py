"""The soak: its plan follows from the seed, and its report explains losses by events."""

from itertools import islice
from typing import Any

from tests.system.soak.actions import KINDS
from tests.system.soak.plan import WEIGHTS, steps
from tests.system.soak.report import explain, grown


def test_the_seed_decides() -> None:
    """The same seed gives the same steps, another seed others, and every kind of step comes and can be carried out."""
    first, again, other = (list(islice(steps(seed), 200)) for seed in (1, 1, 2))
    assert first == again != other
    assert {step.kind for step in first} == set(WEIGHTS) == set(KINDS)


def lost(name: str, at: float, how: str = "reset") -> dict[str, Any]:
    """A loss as the clients report it."""
    return {"name": name, "begun": at - 10, "at": at, "how": how}


def closed(peer: str, at: float, reason: str = "worker_died") -> dict[str, Any]:
    """The event of a connection."""
    return {"event": "connection_closed", "peer": peer, "at": at, "reason": reason}


def exited(clients: int, kept: int, at: float) -> dict[str, Any]:
    """The event of a worker."""
    return {"event": "worker_exited", "clients": clients, "kept": kept, "at": at}


def test_an_event_with_the_address_explains_a_loss() -> None:
    """An event explains one loss of the same client, over TCP or a unix socket, if it is from about the same time."""
    events = [closed("127.0.0.1:5", 100), closed("unix:pid=7,uid=0", 100), closed("127.0.0.1:6", 500)]
    names = ["127.0.0.1:5", "127.0.0.1:5", "unix:pid=7,", "127.0.0.1:6"]
    losses = explain([lost(name, 100) for name in names], events)
    assert [loss["name"] for loss, _ in losses.with_event] == ["127.0.0.1:5", "unix:pid=7,"]
    assert [loss["name"] for loss in losses.without_event] == ["127.0.0.1:5", "127.0.0.1:6"]


def test_a_worker_counts_its_young_connections() -> None:
    """Without an event of their own, as many losses are explained as the worker had connections without a copy."""
    events = [closed("127.0.0.1:1", 100), exited(5, 2, 100)]  # of the three that were not kept, one has an event
    losses = explain([lost(f"127.0.0.1:{port}", 100) for port in range(1, 5)], events)
    assert (len(losses.with_event), len(losses.counted), len(losses.without_event)) == (1, 2, 1)


def test_an_end_without_a_reset() -> None:
    """A connection over TCP that ended without a reset is named, whatever event it has; one on a unix socket is not."""
    ends = [lost("127.0.0.1:1", 100, "end"), lost("unix:pid=1,", 100, "end"), lost("127.0.0.1:2", 100)]
    losses = explain(ends, [closed("127.0.0.1:1", 100)])
    assert [loss["name"] for loss in losses.without_reset] == ["127.0.0.1:1"]


def test_growth() -> None:
    """Memory may vary a little; of descriptors none may be left over."""
    assert list(grown({"memory": 100, "descriptors": 10}, {"memory": 120, "descriptors": 10})) == []
    assert len(list(grown({"memory": 100, "descriptors": 10}, {"memory": 130, "descriptors": 11}))) == 2
