"""The source archive and the wheel, as packages for pip: what they contain, and what they say about echod."""

import email
import email.message
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT = 100.0  # seconds; a build takes two


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive of this checkout, unpacked."""
    return unpacked_archive(ROOT, tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive."""
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


def build(target: str, source: Path, into: Path) -> Path:
    """Build the source archive ("sdist") or the wheel of a directory, by the backend that pyproject.toml names."""
    command = (sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into))
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = into.iterdir()
    return built


def unpacked_archive(source: Path, scratch: Path) -> Path:
    """Build the source archive of a directory, and unpack it."""
    built = build("sdist", source, scratch / "built")
    into = scratch / "unpacked"
    into.mkdir()
    # tar(1), because Python's own module warns without a filter, which Python 3.11.2 does not know yet.
    subprocess.run(("tar", "-xzf", str(built), "-C", str(into)), check=True, timeout=TIMEOUT)
    (unpacked,) = into.iterdir()
    return unpacked


def files(directory: Path) -> set[str]:
    """The paths of all files below a directory, relative to it."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def modules(directory: Path) -> set[str]:
    """Every module below echod/, and the marker of a typed package."""
    return {path for path in files(directory) if path.startswith("echod/") and path.endswith((".py", "py.typed"))}


def contents(wheel: Path) -> set[str]:
    """What a wheel installs."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def metadata(wheel: Path) -> email.message.Message:
    """What a wheel says about itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_source_archive_is_what_git_tracks(source: Path) -> None:
    """It contains each tracked file of the checkout, tests and packaging included, and one file of its own."""
    # New files count before they are added, and removed ones do not, so that the test holds while one works.
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=TIMEOUT).stdout
    tracked = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    assert files(source) - {"PKG-INFO"} == tracked


def test_the_source_archive_keeps_what_is_executable(source: Path) -> None:
    """A script that can be run in the checkout can be run in the archive."""
    for name in files(source) - {"PKG-INFO"}:
        assert (source / name).stat().st_mode & 0o111 == (ROOT / name).stat().st_mode & 0o111, name


def test_the_wheel_is_the_whole_package(wheel: Path) -> None:
    """It contains every module below echod/, the marker for type checkers, and nothing else."""
    assert contents(wheel) == modules(ROOT)


def test_a_new_package_is_found(source: Path, tmp_path: Path) -> None:
    """No list has to name it: a package inside a package gets into the source archive and the wheel."""
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    new = {"echod/scratch/__init__.py", "echod/scratch/deep/__init__.py", "echod/scratch/deep/module.py"}
    for name in new:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).touch()
    (tmp_path / "wheel").mkdir()
    again = unpacked_archive(copy, tmp_path)
    assert contents(build("wheel", again, tmp_path / "wheel")) == modules(ROOT) | new


def test_the_wheel_names_its_home(wheel: Path) -> None:
    """Its page links to the project, the source, the changelog and the issues."""
    urls = dict(value.split(", ") for value in metadata(wheel).get_all("Project-URL", []))
    assert list(urls) == ["Homepage", "Source", "Changelog", "Issues"]
    assert all(url.startswith(urls["Homepage"]) for url in urls.values())


def test_the_wheel_says_how_it_is_installed(wheel: Path) -> None:
    """Its description is for users of pip: no command in it is make, which needs a checkout."""
    description = str(metadata(wheel).get_payload())
    commands = [line[2:] for line in description.splitlines() if line.startswith("$ ")]
    assert commands == ["pip install echod", "echod", "echoc localhost"]
