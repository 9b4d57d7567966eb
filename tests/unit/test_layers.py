"""The floors of echod: what each module may import, by the imports that it has.

A module imports from floors below its own, never from its own and never from above: so there is no cycle, and whoever
reads from the ground up meets nothing that is not known yet.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import echod

FLOORS = [
    [
        "errors",
        "forms",
        "journald",
        "life",
        "quantities",
        "queues",
        "relay",
        "sentences",
        "signals",
        "sink",
        "stats",
        "systemd",
        "timers",
        "tuning",
        "unixfile",
    ],
    ["address", "balance", "handover", "journal", "kinds", "limits", "loop", "slot", "stall", "status"],
    ["config", "listeners", "report", "session"],
    ["acceptor", "copies", "sources", "terms"],
    ["configuration", "lastgood", "reload", "shares", "worker"],
    ["crew"],
    ["relief"],
    ["supervisor"],
    ["serving"],
    ["cli"],
    ["__main__"],
]
FLOOR_OF = {module: number for number, floor in enumerate(FLOORS) for module in floor}

THIRD_PARTIES = {
    "pydantic": {"config", "kinds", "sources"},
    "pydantic_settings": {"config", "kinds", "sources"},
    "pythonjsonlogger": {"forms"},
    "sdnotify": {"systemd"},
}
"""Every package that is not Python's own, and who may import it."""

PACKAGE = Path(echod.__file__).parent
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py" and "client" not in path.relative_to(PACKAGE).parts
}


def imports(path: Path) -> Iterator[str]:
    """The full names that a file imports, wherever in it: of modules, and of what is taken from them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by dots"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of echod that a module imports; the package itself, for its version, is not one."""
    names = [name.removeprefix("echod.") for name in imports(FILES[module]) if name.startswith("echod.")]
    return {name if name in FILES else name.rpartition(".")[0] for name in names} - {""}


def test_every_module_has_its_floor() -> None:
    """And no floor has a module that is not there."""
    assert sorted(FLOOR_OF) == sorted(FILES)


def test_imports_go_downward_only() -> None:
    """Never up, and never sideways."""
    wrong = [
        f"{module} imports {other}"
        for module in FILES
        for other in own_imports(module)
        if FLOOR_OF[other] >= FLOOR_OF[module]
    ]
    assert wrong == []


def test_no_module_stands_higher_than_it_must() -> None:
    """Each imports from the floor right below its own, so the table is the only one possible."""
    expected = {module: max((FLOOR_OF[other] + 1 for other in own_imports(module)), default=0) for module in FLOOR_OF}
    assert expected == FLOOR_OF


def test_client_and_daemon_do_not_know_each_other() -> None:
    """echoc starts fast, and works where the daemon's packages are not installed."""
    for module in FILES:
        others = {other.startswith("client.") for other in own_imports(module)}
        assert others <= {module.startswith("client.")}


def test_what_is_not_pythons_own_has_its_importers() -> None:
    """One place for each package: whoever replaces it looks there."""
    importers: dict[str, set[str]] = {}
    for module, path in FILES.items():
        for package in {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"echod"}:
            importers.setdefault(package, set()).add(module)
    assert importers == THIRD_PARTIES


def test_importing_a_package_imports_nothing() -> None:
    """echoc would pay for it at each start."""
    assert [name for path in PACKAGE.rglob("__init__.py") for name in imports(path)] == []


def test_a_module_is_not_longer_than_one_idea() -> None:
    """300 lines at most."""
    assert {module for module, path in FILES.items() if len(path.read_text().splitlines()) > 300} == set()
