"""Ranges outside which a value is an alert, as monitoring plugins take them.

After the Monitoring Plugins Development Guidelines, "Threshold and ranges".
"""

FORMS = "MOST, LEAST:, LEAST:MOST, ~:MOST, or with an @ before it for alerts inside the range"

_INFINITY = float("inf")


class Threshold:
    """A range, both ends of which are in it; as text it is what was written, which is how performance data has it."""

    def __init__(self, text: str) -> None:
        """Raises ValueError when `text` is no range."""
        self._text = text
        self._inside = text.startswith("@")
        start, _, end = text.removeprefix("@").rpartition(":")
        if not (start or end):
            raise ValueError(text)
        self._least = -_INFINITY if start == "~" else _number(start or "0")
        self._most = _number(end) if end else _INFINITY
        if self._least > self._most:
            raise ValueError(text)

    def alerts(self, value: float) -> bool:
        """Whether `value` is to be told: outside the range, or inside one that was written with an @."""
        return (self._least <= value <= self._most) == self._inside

    @property
    def side(self) -> str:
        """On which side of its ends the values lie that alert: "inside" or "outside"."""
        return "inside" if self._inside else "outside"

    def __str__(self) -> str:
        return self._text


def _number(text: str) -> float:
    # Performance data knows no other characters: neither 1e3 nor 1_000, nor "nan".
    if not text or text.strip("-.0123456789"):
        raise ValueError(text)
    return float(text)
