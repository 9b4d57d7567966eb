"""The structure of echoc's code: its layers, by the imports of its modules, and the size of these."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import echod.client

LAYERS = [
    ["cli"],
    ["check", "load", "ping", "send"],
    ["connect", "exchange", "options"],
    ["compare", "histogram", "output", "spool", "target"],
    ["transport"],
    ["errors"],
    ["text"],
]
"""Modules and packages; each imports only from layers below its own."""

ROOT = Path(echod.client.__file__).parent
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """The full names of all modules, and of all names in them, that a module imports anywhere."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def client_imports(module: str) -> set[str]:
    """The modules of the client that a module imports."""
    names = {name.removeprefix("echod.client.") for name in imports(module) if name.startswith("echod.client.")}
    return {name if name in FILES else name.rpartition(".")[0] for name in names}


def layer_of(module: str) -> int:
    """The number of the layer that a module belongs to."""
    [number] = [number for number, layer in enumerate(LAYERS) if module.partition(".")[0] in layer]
    return number


def test_table_is_complete() -> None:
    """The table names every module and package, and no others."""
    assert sorted(name for layer in LAYERS for name in layer) == sorted(
        {name.partition(".")[0] for name in FILES} - {"__init__"}
    )


def test_imports_go_down() -> None:
    """A module imports only from lower layers and from its own package; no verb imports another."""
    wrong = [
        f"{module} imports {other}"
        for module in FILES
        for other in client_imports(module)
        if module.partition(".")[0] != other.partition(".")[0] and layer_of(other) <= layer_of(module)
    ]
    assert wrong == []


def test_no_cycle() -> None:
    """No import leads back to its module, within a package either."""
    TopologicalSorter({module: client_imports(module) for module in FILES}).prepare()


def test_nothing_but_the_standard_library() -> None:
    """The client needs neither the daemon nor its requirements: it imports the standard library, and the version."""
    others = {name for module in FILES for name in imports(module) if not name.startswith("echod.client.")}
    foreign = {name for name in others if name.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign <= {"echod.__version__"}


def test_importing_a_package_imports_nothing() -> None:
    """A package's `__init__` would delay every start of echoc."""
    assert [name for module in FILES if module.endswith("__init__") for name in imports(module)] == []


def test_length() -> None:
    """No module is longer than 400 lines."""
    assert {module for module, path in FILES.items() if len(path.read_text().splitlines()) > 400} == set()


def test_parameters() -> None:
    """No function has more than six parameters, not counting self."""
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [parameter.arg for parameter in parameters if parameter.arg != "self"]
                assert len(names) <= 6, f"{module}.{node.name}"
