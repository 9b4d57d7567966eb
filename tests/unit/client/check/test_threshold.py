"""echod.client.check.threshold."""

import pytest

from echod.client.check.threshold import Threshold


@pytest.mark.parametrize(
    ("text", "alerts", "fine"),
    [
        ("10", [-0.1, 10.1], [0, 5, 10]),
        (":10", [-0.1, 10.1], [0, 10]),
        ("10:", [9.9], [10, 1e9]),
        ("~:10", [10.1], [-1e9, 10]),
        ("~:", [], [-1e9, 1e9]),
        ("10:20", [9.9, 20.1], [10, 20]),
        ("@10:20", [10, 15, 20], [9.9, 20.1]),
        ("@10", [0, 10], [-0.1, 10.1]),
        ("-2:-1", [0], [-1.5]),
        ("0.25", [0.26], [0.25]),
    ],
)
def test_alerts(text: str, alerts: list[float], fine: list[float]) -> None:
    """The guidelines' examples and others: a range includes both ends, whichever side alerts."""
    threshold = Threshold(text)
    assert [value for value in alerts + fine if threshold.alerts(value)] == alerts


@pytest.mark.parametrize("text", ["10", "@10:20", "~:0.50"])
def test_text(text: str) -> None:
    """A threshold as text is what was given."""
    assert str(Threshold(text)) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", "10"), ("@0:60", "@0:60"), ("~:100ms", "~:0.1"), ("50us:", "0.00005:"), ("@1m:1h", "@60:3600")],
)
def test_in_seconds(text: str, seconds: str) -> None:
    """For performance data a threshold has no units."""
    assert Threshold(text).in_seconds == seconds


def test_side() -> None:
    """A range with an @ alerts inside, any other outside."""
    assert (Threshold("10").side, Threshold("@10").side) == ("outside", "inside")


@pytest.mark.parametrize(
    "text",
    ["", ":", "@", "@:", "20:10", "1e3", "nan", "inf", "1_0", "1:2:3", "-", "1,5", "5 ", "~", "5x", "ms", "~ms:5"],
)
def test_no_range(text: str) -> None:
    """A text that performance data could not repeat, or that no value could meet, is not a range."""
    with pytest.raises(ValueError):
        Threshold(text)
