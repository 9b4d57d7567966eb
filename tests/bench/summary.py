"""All figures of a run in one table, in Markdown: for each load C's cost, and its ratio to each server's."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench import idle, ready
from tests.bench.idle import Idle
from tests.bench.ready import Ready
from tests.bench.report import Spread, Table

_IN_C = {"c": "64 KiB", "c256": "256 KiB"}
_SHORT = {"message": "us", "MiB": "us/MiB", "connection": "us"}


@dataclass(slots=True)
class Results:
    """What was measured; a part that was not chosen is empty."""

    head: dict[str, str]
    servers: Sequence[str]
    held: dict[str, float] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    idle: dict[str, Idle] = field(default_factory=dict)
    ready: dict[str, list[Ready]] = field(default_factory=dict)
    marked: Collection[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Every single figure."""
        return self.head | {
            "held_mib": self.held,
            "cases": [table.to_json() for table in self.tables],
            "idle": {name: each._asdict() for name, each in self.idle.items()},
            "ready": {name: [each._asdict() for each in starts] for name, starts in self.ready.items()},
        }

    def markdown(self) -> str:
        """The table: columns for C's cost, for the goal of echod, and for each of the other servers."""
        others = [name for name in self.servers if name not in _IN_C]
        heads = ["load", "C", "must reach", *(f"{name} *" if name in self.marked else name for name in others)]
        rows = [heads, ["---"] * len(heads)]
        for table in self.tables:
            rows += _of_case(table, others)
        memory = {name: f"{each.memory:,.0f} B" for name, each in self.idle.items()}
        rows += _of_probe("memory of an idle connection", memory, f"{idle.GOAL_BYTES:,} B", others)
        cores = {name: f"{each.cores:.4f}" for name, each in self.idle.items()}
        rows += _of_probe(f"CPU of {idle.CONNECTIONS:,} idle connections", cores, f"{idle.GOAL_CORES}", others)
        spent = {name: Spread.over([each.seconds for each in starts]).show(3) for name, starts in self.ready.items()}
        rows += _of_probe("start to READY: CPU in s", spent, f"{ready.GOAL_SECONDS}", others)
        size = {name: Spread.over([each.memory for each in starts]).show(1) for name, starts in self.ready.items()}
        rows += _of_probe("start to READY: memory in MiB", size, f"{ready.GOAL_MIB}", others)
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _of_probe(title: str, figures: dict[str, str], goal: str, others: Sequence[str]) -> list[list[str]]:
    return [[title, figures.get("c", ""), goal, *(figures.get(name, "") for name in others)]] if figures else []


def _of_case(table: Table, others: Sequence[str]) -> list[list[str]]:
    case = table.case
    rows = []
    for reference, goal in case.goals:
        if reference not in table.rounds:
            continue
        title = case.title if len(case.goals) == 1 else f"{case.title}, C reads {_IN_C[reference]}"
        cost = f"{table.value(reference, 'cpu').show(1)} {_SHORT[case.unit]}"
        shares = [table.ratio(reference, "cpu", name).show() if name in table.rounds else "" for name in others]
        rows.append([title, cost, f"{goal:.2f}", *shares])
    for name, what, goal, sign in (("rate", "throughput", case.throughput, ""), ("p99", "p99", case.p99, "<= ")):
        if goal and "c" in table.rounds:
            shares = [table.ratio(each, name, "c").show() if each in table.rounds else "" for each in others]
            in_c = f"{table.value('c', name).median:,.0f} {'us' if name == 'p99' else case.rate}"
            rows.append([f"{case.title}: {what}", in_c, f"{sign}{goal}", *shares])
    return rows
