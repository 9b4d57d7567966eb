"""The Debian packages as files, before they are installed."""

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.system import package


def test_a_second_build_makes_the_same_bytes(packages: list[Path], tmp_path: Path) -> None:
    """The packages are reproducible: built elsewhere and in another environment, they have the same hashes."""
    again = package.build(tmp_path, umask=0o077, PYTHON=sys.executable, TZ="Asia/Kathmandu", LC_ALL="C")
    assert [(path.name, digest(path)) for path in again] == [(path.name, digest(path)) for path in packages]


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def for_arm(prepared: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The packages for 64-bit ARM, which any machine can build; the first time this needs a network."""
    make = ("make", "-C", str(package.CHECKOUT), "wheels", "MACHINE=aarch64")
    subprocess.run(make, check=True, timeout=package.BUILD_TIMEOUT, capture_output=True)
    return package.build(tmp_path_factory.mktemp("arm"), machine="aarch64")


def test_arm_is_served_by_the_same_recipe(for_arm: list[Path]) -> None:
    """The package echod and its compiled modules are for that architecture; the package echoc is for all."""
    assert [path.stem.rpartition("_")[2] for path in for_arm] == ["all", "arm64"]
    compiled = [name for name in listing(for_arm, "echod") if name.endswith(".so")]
    assert len(compiled) == 4
    assert all("aarch64" in name for name in compiled)
    check_by_lintian(for_arm)


def test_lintian_has_nothing_to_say(packages: list[Path]) -> None:
    """Debian's own checker reports no error and no warning."""
    check_by_lintian(packages)


def check_by_lintian(packages: list[Path]) -> None:
    """Skips if lintian is not installed."""
    if not shutil.which("lintian"):
        pytest.skip("lintian is not installed")
    # Without this option lintian first prints, as root, that it should not run as root.
    command = ("lintian", "--allow-root", "--tag-display-limit=0", *map(str, packages))
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=package.BUILD_TIMEOUT)
    complaints = [line for line in found.stdout.splitlines() if re.match("[EW]:", line)]
    assert (complaints, found.returncode) == ([], 0), found.stderr


def test_there_is_a_module_for_each_python(packages: list[Path]) -> None:
    """One package serves the Pythons of all releases: 3.11 of Debian 12 to 3.14 of the newest."""
    names = listing(packages, "echod")
    compiled = {match[1] for name in names if (match := re.search(r"/_pydantic_core\.cpython-(\d+)-.*\.so$", name))}
    assert compiled == {"311", "312", "313", "314"}
    assert all(package.MACHINE in name for name in names if name.endswith(".so"))


def test_another_python_of_the_distribution_is_prepared_for(packages: list[Path]) -> None:
    """Each package has the hook by which Debian recompiles the modules when its default Python changes."""
    for name in ("echod", "echoc"):
        assert f"./usr/share/python3/runtime.d/{name}.rtupdate" in listing(packages, name)


def test_the_daemon_and_the_client_share_no_file(packages: list[Path]) -> None:
    """Either can be installed without the other."""
    files = {name for name in listing(packages, "echoc") if not name.endswith("/")}
    assert not files & set(listing(packages, "echod"))
    assert "./usr/bin/echoc" in files


def test_the_units_are_where_every_release_reads_them(packages: list[Path]) -> None:
    """In /usr/lib, whichever release built the package: in Debian 13 /lib is a link, and dpkg warns of files in it."""
    names = listing(packages, "echod")
    assert "./usr/lib/systemd/system/echod.service" in names
    assert [name for name in names if name.startswith("./lib")] == []


def test_the_packages_name_their_home(packages: list[Path]) -> None:
    """apt show prints the home page, and the source package names the repository; both are those of the wheel."""
    urls = tomllib.loads((package.CHECKOUT / "pyproject.toml").read_text())["project"]["urls"]
    for path in packages:
        command = ("dpkg-deb", "--field", path, "Homepage")
        shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=package.BUILD_TIMEOUT)
        assert shown.stdout.strip() == urls["Homepage"]
    source = (package.CHECKOUT / "packaging/debian/control").read_text()
    assert f"Vcs-Browser: {urls['Homepage']}\n" in source
    assert f"Vcs-Git: {urls['Source']}\n" in source


def test_the_documentation_is_there(packages: list[Path]) -> None:
    """Each package has two changelogs, its own and the program's; echod's has README.Debian and the drop-ins too."""
    for name in ("echod", "echoc"):
        found = {path.removesuffix(".gz") for path in listing(packages, name)}
        assert {f"./usr/share/doc/{name}/changelog", f"./usr/share/doc/{name}/CHANGELOG.md"} <= found
    names = listing(packages, "echod")
    assert "./usr/share/doc/echod/README.Debian" in names
    for example in ("echod.toml", "privileged-port.conf", "socket-activated.conf"):
        assert f"./usr/share/doc/echod/examples/{example}" in names
        assert f"./usr/share/echod/{example}" in names


def listing(packages: list[Path], name: str) -> list[str]:
    """The paths in the package of that name."""
    path = next(path for path in packages if path.name.startswith(f"{name}_"))
    limit = package.BUILD_TIMEOUT
    shown = subprocess.run(("dpkg-deb", "--fsys-tarfile", path), check=True, capture_output=True, timeout=limit).stdout
    tar = subprocess.run(("tar", "-t"), input=shown, check=True, capture_output=True, timeout=limit).stdout
    return tar.decode().splitlines()


def test_the_versions_agree() -> None:
    """The package's version is the program's."""
    changelog = (package.CHECKOUT / "packaging/debian/changelog").read_text()
    program = (package.CHECKOUT / "echod/__init__.py").read_text()
    assert re.match(r"echod \((.*?)\)", changelog)[1] == re.search(r'__version__ = "(.*)"', program)[1]  # type: ignore[index]
