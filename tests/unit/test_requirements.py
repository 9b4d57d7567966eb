"""packaging/requirements: the pins agree with pyproject.toml, and name no source of packages."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "packaging" / "requirements"
PINNED = sorted(path.name for path in REQUIREMENTS.glob("*.txt"))

BOUND = re.compile(r"([a-z0-9-]+)>=([0-9.]+)")
PIN = re.compile(r"([a-z0-9-]+)==([0-9.]+) \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")

Release = tuple[int, ...]


def release(version: str) -> Release:
    """A version as numbers, so that 2.8 is below 2.10, and 2.8 equals 2.8.0."""
    numbers = [int(number) for number in version.split(".")]
    return tuple(numbers + [0] * (4 - len(numbers)))


def pins(name: str) -> dict[str, Release]:
    """The version of each package in a generated file."""
    lines = (REQUIREMENTS / name).read_text().splitlines()
    return {match[1]: release(match[2]) for line in lines if (match := PIN.fullmatch(line))}


def bounds() -> dict[str, Release]:
    """The lowest version of each of echod's dependencies that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    for dependency in project["dependencies"]:
        match = BOUND.fullmatch(dependency)
        assert match, f"{dependency} must have a lower bound and nothing else"
        found[match[1]] = release(match[2])
    return found


@pytest.mark.parametrize("name", PINNED)
def test_a_file_of_pins_holds_versions_and_hashes_only(name: str) -> None:
    """No option, no address and no path: where packages come from is each user's own configuration."""
    for line in (REQUIREMENTS / name).read_text().splitlines():
        bare = line.strip()
        assert not bare or bare.startswith("#") or PIN.fullmatch(line) or HASH.fullmatch(line), line
        assert "//" not in line, line


def test_every_dependency_is_pinned() -> None:
    """The runtime set has every dependency of echod, in a version that pyproject.toml allows."""
    pinned = pins("runtime.txt")
    for package, bound in bounds().items():
        assert pinned[package] >= bound, package


def test_the_lower_bounds_are_tested() -> None:
    """The lowest set has every dependency in exactly the lowest version that pyproject.toml allows."""
    pinned = pins("lowest.txt")
    for package, bound in bounds().items():
        assert pinned[package] == bound, package


@pytest.mark.parametrize("name", ["runtime.txt", "lowest.txt"])
def test_the_tests_share_no_package_with_echod(name: str) -> None:
    """The test set goes with either set that echod runs on, without moving one of its versions."""
    assert not pins("test.txt").keys() & pins(name).keys()


def test_a_package_has_one_version() -> None:
    """Several sets may name a package, because one environment may have them all: only the lowest set differs."""
    found: dict[str, Release] = {}
    for name in PINNED:
        if name != "lowest.txt":
            for package, version in pins(name).items():
                assert found.setdefault(package, version) == version, f"{package} in {name}"


def test_the_build_backend_is_pinned() -> None:
    """The backend of pyproject.toml is in the set that builds, as is setuptools, which builds sdnotify."""
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    match = BOUND.fullmatch(requires[0])
    assert match
    assert len(requires) == 1
    assert pins("build.txt")[match[1]] >= release(match[2])
    assert "setuptools" in pins("build.txt")
