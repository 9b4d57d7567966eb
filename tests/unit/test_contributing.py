"""CONTRIBUTING.md: the functions that it names exist."""

import importlib
import re
from pathlib import Path

import pytest

import echod

PACKAGE = Path(echod.__file__).parent
TESTS = Path(__file__).parents[1]
TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
PACKAGES = "cli|config|daemon|handover|log|net|parent|shared|systemd|worker"
NAMES = sorted(set(re.findall(rf"`((?:{PACKAGES})\.[\w.]+)`", TEXT)))
WALKS = dict(re.findall(r"^### (.+)\n((?:(?!^##).*\n)+)", TEXT, re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists(name: str) -> None:
    """A module, class or function that is named in the text is there, under that name."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(["echod", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return
    raise AssertionError(f"echod has no module of {name}")


DOCSTRINGS = {
    f"{path.relative_to(PACKAGE)}:{name}": name
    for path in sorted(PACKAGE.rglob("*.py"))
    if "client" not in path.parts
    for name in re.findall(rf"`((?:{PACKAGES})\.[\w.]+)`", path.read_text())
}


@pytest.mark.parametrize("name", DOCSTRINGS.values(), ids=DOCSTRINGS)
def test_every_name_in_the_code_exists(name: str) -> None:
    """The same holds for names in docstrings and comments."""
    test_every_name_exists(name)


def test_the_walks_name_functions() -> None:
    """There are four walks, and each step of them names at least one function or module."""
    assert list(WALKS) == ["A byte", "An event", "A setting", "A connection, through a restart"]
    for walk in WALKS.values():
        steps = re.split(r"^\d+\. ", walk.strip(), flags=re.MULTILINE)[1:]
        assert len(steps) >= 4
        assert [step for step in steps if not re.search(rf"`(?:{PACKAGES})\.[\w.]+`", step)] == []


def test_a_walk_is_at_most_a_page() -> None:
    """Thirty lines."""
    assert {title: len(walk.splitlines()) for title, walk in WALKS.items() if len(walk.splitlines()) > 30} == {}


def test_every_end_of_a_connection_has_a_test() -> None:
    """Each row of the table of ends names a test, and each test that the text names is there."""
    table = TEXT.partition("## Every end of a connection")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert [row for row in rows if not re.search(r"`test_\w+\.py::test_\w+`", row)] == []
    tests = {
        (path.name, name)
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", path.read_text())
    }
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", TEXT)
    assert set(named) - tests == set()
