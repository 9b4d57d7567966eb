"""The layers of echod: which package may import which, proved by the imports themselves.

A package imports only from the rows below its own, never from its own row and never from above.  So there is
no cycle, and each package can be understood from the packages below it.
"""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import echod

LAYERS = [
    ["__main__"],
    ["cli"],
    ["daemon"],
    ["parent"],
    ["worker"],
    ["handover"],
    ["shared"],
    ["config", "log", "net", "systemd"],
    ["errors"],
]
"""From the top down.  The modules of one package may import each other, as long as that makes no cycle."""

LINES_MAX = 400

THIRD_PARTIES = {
    "pydantic": {"config"},
    "pydantic_settings": {"config"},
    "pythonjsonlogger": {"log"},
    "sdnotify": {"systemd"},
}
"""Each package that is not part of Python or echod, and its only importers."""

SETTINGS_READERS = {"cli", "config", "daemon", "parent.last_good", "parent.reload"}
"""All other modules get plain values, so that a key can be renamed without them."""

CLIENT = "client"
"""echoc is independent of the daemon: they share only the version."""

ROOT = Path(echod.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
    if path.name != "__init__.py"
}
ROW_OF = {package: number for number, row in enumerate(reversed(LAYERS)) for package in row}


def package_of(module: str) -> str:
    """The unit to which a module belongs: its package, or the module itself at the top level."""
    return module.partition(".")[0]


def imports(path: Path) -> Iterator[str]:
    """The full names that a file imports, wherever in it: modules, and names taken from them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by dots"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def own_imports(module: str) -> set[str]:
    """The modules of echod that a module imports; echod itself, imported for its version, does not count."""
    names = [name.removeprefix("echod.") for name in imports(FILES[module]) if name.startswith("echod.")]
    return {name if name in FILES else name.rpartition(".")[0] for name in names} - {""}


def reachable(module: str) -> set[str]:
    """Every module of the same package that is imported when `module` is."""
    found: set[str] = set()
    new = {module}
    while new:
        siblings = {other for each in new for other in own_imports(each) if package_of(other) == package_of(module)}
        new = siblings - found
        found |= new
    return found


def test_every_package_has_its_row() -> None:
    """The table names each package and each module of the top level, and nothing else."""
    assert sorted(ROW_OF) == sorted({package_of(module) for module in FILES} - {CLIENT})


def test_packages_import_downward_only() -> None:
    """A package imports neither from a row above its own nor from another package of its row."""
    wrong = [
        f"{module} imports {other}"
        for module in FILES
        for other in own_imports(module)
        if (mine := package_of(module)) != (theirs := package_of(other)) and CLIENT not in (mine, theirs)
        if ROW_OF[theirs] >= ROW_OF[mine]
    ]
    assert wrong == []


def test_no_package_stands_higher_than_it_must() -> None:
    """A package imports from the row right below its own, so the table is the only one possible."""
    below = {
        package: {
            ROW_OF[package_of(other)]
            for module in FILES
            if package_of(module) == package
            for other in own_imports(module)
            if package_of(other) not in (package, CLIENT)
        }
        for package in ROW_OF
    }
    lowest = min(number for number, row in enumerate(reversed(LAYERS)) if len(row) > 1)
    expected = {package: max(rows, default=-1) + 1 for package, rows in below.items() if ROW_OF[package] > lowest}
    assert expected == {package: row for package, row in ROW_OF.items() if row > lowest}


def test_no_package_has_a_cycle() -> None:
    """The modules of a package do not import each other in a circle."""
    assert [module for module in FILES if module in reachable(module)] == []


def test_client_and_daemon_do_not_know_each_other() -> None:
    """echoc starts fast, and works without the packages that the daemon needs."""
    for module in FILES:
        others = {package_of(other) == CLIENT for other in own_imports(module)}
        assert others <= {package_of(module) == CLIENT}


def test_third_parties_have_one_importer() -> None:
    """Each package that is not part of Python is imported in one place, where it can be replaced."""
    importers: dict[str, set[str]] = {}
    for module, path in FILES.items():
        for package in {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"echod"}:
            importers.setdefault(package, set()).add(package_of(module))
    assert importers == THIRD_PARTIES


def test_importing_a_package_imports_nothing() -> None:
    """An `__init__` has a docstring and no imports, which would slow each start of echoc."""
    assert [name for path in ROOT.rglob("__init__.py") for name in imports(path)] == []


def test_every_package_explains_itself() -> None:
    """Each package has a docstring in `__init__`, since readers begin there."""
    packages = [path for path in ROOT.rglob("__init__.py") if path.parent != ROOT]
    assert [path for path in packages if len((ast.get_docstring(ast.parse(path.read_text())) or "").split()) < 20] == []


def test_few_modules_see_the_settings() -> None:
    """Only these modules import the model of the settings."""
    readers = {module for module in FILES if any(other.startswith("config.") for other in own_imports(module))}
    assert {reader if not reader.startswith("config.") else "config" for reader in readers} == SETTINGS_READERS


def test_a_module_is_not_too_long() -> None:
    """A module that outgrows this has more than one idea."""
    assert {module for module, path in FILES.items() if len(path.read_text().splitlines()) > LINES_MAX} == set()


def test_no_function_has_many_parameters() -> None:
    """Six at most; values that travel together have a name.  An event's parameters are its fields."""
    found = {
        f"{module}.{node.name}"
        for module, path in FILES.items()
        if module != "log.events"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        if len({argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)} - {"self", "cls"}) > 6
    }
    assert found == set()
