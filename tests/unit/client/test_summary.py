"""A load's numbers, as text."""

from echod.client.load.summary import summary
from echod.client.load.tally import Tally


def test_width() -> None:
    """Values stand below each other, in 80 columns, also with many errors of the longest kinds and reasons."""
    total = Tally()
    total.lost = 12_345_678
    for kind, why in (
        ("shortfall", ""),
        ("broken", "Connection reset by peer"),
        ("connect", "no local port is left (Cannot assign requested address)"),
    ):
        total.errors[kind, why] = 12_345_678
    lines = summary("message", [("target", "localhost:7")], total, total, 10.0, 1.0, has_colours=False)
    assert max(map(len, lines)) <= 80
    assert {line[15] for line in lines} == {" "}
    assert " " not in {line[16] for line in lines}
