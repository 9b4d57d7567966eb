"""Ranges outside which a value is an alert, as monitoring plugins take them.

After the Monitoring Plugins Development Guidelines, "Threshold and ranges".
"""

from echod.client.options import TIME_UNITS

FORMS = (
    "MAX, MIN:, MIN:MAX or ~:MAX, in seconds or with a unit, or one of these after an @, which alerts inside the range "
    "instead"
)

_INFINITY = float("inf")


class Threshold:
    """A range, which includes both ends; as text it is what was given, and `in_seconds` the same for the performance
    data."""

    def __init__(self, text: str) -> None:
        """Raises ValueError when `text` is not a range."""
        self._text = text
        self._inside = text.startswith("@")
        start, colon, end = text.removeprefix("@").rpartition(":")
        start, end = _without_unit(start), _without_unit(end)
        self.in_seconds = f"{'@' if self._inside else ''}{start}{colon}{end}"
        if not (start or end):
            raise ValueError(text)
        self._least = -_INFINITY if start == "~" else _number(start or "0")
        self._most = _number(end) if end else _INFINITY
        if self._least > self._most:
            raise ValueError(text)

    def alerts(self, value: float) -> bool:
        """Whether `value` is an alert: outside the range, or inside a range given with an @."""
        return (self._least <= value <= self._most) == self._inside

    @property
    def side(self) -> str:
        """Where the values that alert are: "inside" or "outside"."""
        return "inside" if self._inside else "outside"

    def __str__(self) -> str:
        return self._text


def _without_unit(text: str) -> str:
    """A bound in seconds, in digits: performance data allows no other form, neither 100ms nor 1e3."""
    number = text.rstrip("hmsu")
    if number == text:
        return text
    if text[len(number) :] not in TIME_UNITS:
        raise ValueError(text)
    return f"{_number(number) * TIME_UNITS[text[len(number) :]]:.6f}".rstrip("0").rstrip(".")


def _number(text: str) -> float:
    # Performance data allows no other characters: neither 1e3 nor 1_000, nor "nan".
    if not text or text.strip("-.0123456789"):
        raise ValueError(text)
    return float(text)
