"""The figures as a table, and as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.measure import Case, Round

REFERENCES = ("uvloop", "echod")
"""The server by whose cost the others' costs are divided."""


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

    def show(self, digits: int) -> str:
        """The three values in readable form."""
        return f"{self.median:.{digits}f} [{self.low:.{digits}f} {self.high:.{digits}f}]"


@dataclass(frozen=True, slots=True)
class Table:
    """All servers' rounds of one case."""

    case: Case
    rounds: dict[str, list[Round]]

    def cost(self, name: str) -> Spread:
        """Microseconds of CPU time per message."""
        return Spread.over([one.median for one in self.rounds[name]])

    def ratio(self, name: str, reference: str) -> Spread:
        """One server's cost divided by another's, each time within a round."""
        pairs = zip(self.rounds[name], self.rounds[reference], strict=True)
        return Spread.over([mine.ratio(its) for mine, its in pairs])

    def render(self) -> str:
        """The table in readable form."""
        references = [name for name in REFERENCES if name in self.rounds]
        lines = [[str(self.case), "us per message", *(f"/ {name}" for name in references)]]
        for name in self.rounds:
            ratios = [self.ratio(name, other).show(3) if name != other else "1" for other in references]
            lines.append([name, self.cost(name).show(2), *ratios])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("   ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def to_json(self) -> dict[str, Any]:
        """Every slice of every round, in microseconds of CPU time per message."""
        slices = {name: [one.slices for one in rounds] for name, rounds in self.rounds.items()}
        return {"size": self.case.size, "churn": self.case.churn, "us_per_message": slices}


def cpu_model() -> str:
    """The kernel's name for the processor, proc_cpuinfo(5)."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return "unknown"
