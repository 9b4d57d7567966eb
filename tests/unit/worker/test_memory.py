"""memory: which clients are reset when slow clients occupy too much."""

import pytest

from echod.worker.memory import excess

OCCUPIED = [(0, "none"), (30, "most"), (10, "least"), (20, "more")]


@pytest.mark.parametrize(
    ("most", "reset"),
    [
        (61, []),
        (60, []),
        (59, ["most"]),
        (30, ["most"]),
        (29, ["most", "more"]),
        (9, ["most", "more", "least"]),
        (0, ["most", "more", "least"]),
    ],
)
def test_largest_first(most: int, reset: list[str]) -> None:
    """No more clients are reset than necessary, those that occupy most first, and none that occupies nothing."""
    assert excess(OCCUPIED, most) == reset
    assert excess([], most) == []
