"""The figures of a load as a table, and as JSON."""

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.cases import Case
from tests.bench.measure import Round


@dataclass(frozen=True, slots=True)
class Spread:
    """The results of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> "Spread":
        """The summary of one value for each round."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int = 2) -> str:
        """The three values in readable form, or one if they are the same."""
        median = f"{self.median:,.{digits}f}"
        return median if self.low == self.high else f"{median} [{self.low:,.{digits}f} {self.high:,.{digits}f}]"


@dataclass(frozen=True, slots=True)
class Table:
    """All servers' rounds of one case; the servers in `marked` have no back-pressure."""

    case: Case
    rounds: dict[str, list[Round]]
    marked: Collection[str] = ()

    def value(self, name: str, field: str) -> Spread:
        """A server's CPU time, rate or latency."""
        return Spread.over([one.median(field) for one in self.rounds[name]])

    def ratio(self, name: str, field: str, reference: str) -> Spread:
        """One server's value divided by another's, each time within a turn."""
        pairs = zip(self.rounds[name], self.rounds[reference], strict=True)
        return Spread.over([mine.ratio(field, its) for mine, its in pairs])

    def references(self) -> list[str]:
        """The servers with which each server of the table is compared."""
        wanted = [*dict(self.case.goals), *(["echod"] if "echod-b" in self.rounds else [])]
        return [name for name in wanted if name in self.rounds]

    def render(self) -> str:
        """The table in readable form."""
        case = self.case
        per_c = [f"{name} / it" for name in self.references()]
        heads = [case.title, f"CPU us/{case.unit}", *per_c, case.rate, "it / c", "p50 us", "p99 us", "it / c"]
        return align([heads, *map(self._line, self.rounds)])

    def _line(self, name: str) -> list[str]:
        costs = [self.ratio(other, "cpu", name).show() for other in self.references()]
        rate, p50, p99 = (f"{self.value(name, field).median:,.0f}" for field in ("rate", "p50", "p99"))
        rate_to_c, p99_to_c = (
            self.ratio(name, each, "c").show() if "c" in self.rounds else "" for each in ("rate", "p99")
        )
        return [
            f"{name} *" if name in self.marked else name,
            self.value(name, "cpu").show(),
            *costs,
            rate,
            rate_to_c,
            p50,
            p99,
            p99_to_c,
        ]

    def to_json(self) -> dict[str, Any]:
        """Every slice of every round."""
        servers = {
            name: [[each._asdict() for each in one.slices] for one in rounds] for name, rounds in self.rounds.items()
        }
        return {"name": self.case.name, "title": self.case.title, "unit": self.case.unit, "rounds": servers}


def align(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as a text whose columns are aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("   ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
