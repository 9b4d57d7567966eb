"""The text files that packaging/ installs: they fit the terminals in which they are read."""

from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"
SCRIPTS = [*PACKAGING.glob("*.sh"), *PACKAGING.glob("requirements/*.sh"), PACKAGING / "debian/rules"]


def name(path: Path) -> str:
    """A file's path in packaging/."""
    return str(path.relative_to(PACKAGING))


@pytest.mark.parametrize("path", sorted((PACKAGING / "systemd").iterdir()), ids=name)
def test_a_unit_has_no_long_line(path: Path) -> None:
    """`systemctl cat` shows units, drop-ins and their scripts in a terminal: no line has more than 100 columns."""
    assert [line for line in path.read_text().splitlines() if len(line) > 100] == []


@pytest.mark.parametrize("path", sorted(SCRIPTS), ids=name)
def test_a_script_has_no_long_line(path: Path) -> None:
    """Scripts have the line length of the Python code."""
    assert [line for line in path.read_text().splitlines() if len(line) > 120] == []


def test_the_debian_readme_fits_80_columns() -> None:
    """README.Debian is read in a pager on a console, so no line has more than 79 columns."""
    text = (PACKAGING / "debian/echod.README.Debian").read_text()
    assert [line for line in text.splitlines() if len(line) > 79] == []
