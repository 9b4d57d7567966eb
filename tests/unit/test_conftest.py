"""tests/conftest.py: every kind of leak is caught, in the test that made it, and no skip passes in CI."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

TESTS = Path(__file__).parents[1]

Run = Callable[[Mapping[str, str], str], dict[str, str]]

LEAKS = {
    "a descriptor": ("import os\ndef test_it():\n    os.pipe()", "-> pipe:["),
    "a descriptor in place of another": (
        """
        import os
        import pytest

        @pytest.fixture(scope="module")
        def held():
            return os.open("/dev/null", os.O_RDONLY)

        def test_it(held):
            os.dup2(os.open("/dev/zero", os.O_RDONLY), held)
        """,
        "-> /dev/zero",
    ),
    "a socket nobody closed": (
        "import socket\ndef test_it():\n    socket.socket()",
        "ResourceWarning: unclosed <socket.socket",
    ),
    "a socket in a cycle": (
        "import socket\ndef test_it():\n    cycle = [socket.socket()]\n    cycle.append(cycle)",
        "ResourceWarning: unclosed <socket.socket",
    ),
    "an error in a destructor": (
        """
        class Bad:
            def __del__(self):
                raise ValueError("in __del__")

        def test_it():
            cycle = [Bad()]
            cycle.append(cycle)
        """,
        "ValueError: in __del__",
    ),
    "a thread": (
        """
        import threading

        def test_it():
            threading.Thread(target=threading.Event().wait, name="waiter", daemon=True).start()
        """,
        "the test left behind: thread 'waiter'",
    ),
    "an error in a thread": (
        """
        import threading

        def test_it():
            thread = threading.Thread(target=int, args=["in a thread"])
            thread.start()
            thread.join()
        """,
        "ValueError: invalid literal for int() with base 10: 'in a thread'",
    ),
    "a child": (
        """
        import os
        import time

        def test_it():
            if not os.fork():
                time.sleep(60)
                os._exit(0)
        """,
        "the test left behind: process ",
    ),
    "a child nobody waited for": (
        """
        import os

        def test_it():
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        """,
        "(exited, but was not waited for)",
    ),
    "an orphan": (
        """
        import subprocess

        def test_it():
            subprocess.run(["sh", "-c", "sleep 61 &"], check=True)
        """,
        "(sleep 61)",
    ),
}


TIDY = {
    "whoever closes, joins and waits": """
        import socket
        import subprocess
        import threading

        def test_it(tmp_path, capfd):
            (tmp_path / "file").write_text("x")
            with socket.create_server(("127.0.0.1", 0)):
                subprocess.run(["true"], check=True)
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
        """,
    "the test after a leak": """
        import os
        import pytest

        @pytest.fixture(scope="module", autouse=True)
        def leak():
            os.pipe()

        def test_it():
            pass
        """,
}

XFAIL = {
    "an expected failure": """
        import pytest

        @pytest.mark.xfail
        def test_it():
            raise AssertionError
        """,
}

SKIPS = {
    "a test": "import pytest\ndef test_it():\n    pytest.skip('no coffee')",
    "a marked test": "import pytest\n@pytest.mark.skip(reason='no coffee')\ndef test_it():\n    pass",
    "a file": "import pytest\npytest.skip('no coffee', allow_module_level=True)",
    "a fixture": """
        import pytest

        @pytest.fixture
        def cup():
            pytest.skip("no coffee")

        def test_it(cup):
            pass
        """,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run tests, given as texts by name, in a pytest with this project's conftest.py and settings.

    Returns what pytest has to say of each: '' for one that passed.
    """

    def inner(tests: Mapping[str, str], ci: str) -> dict[str, str]:
        place = tmp_path_factory.mktemp("inner")
        shutil.copy(TESTS / "conftest.py", place)
        shutil.copy(TESTS.parent / "pyproject.toml", place)
        for name, text in tests.items():
            (place / f"test_{name.replace(' ', '_')}.py").write_text(textwrap.dedent(text))
        options = ["--junit-xml=report.xml", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, "."]
        subprocess.run(command, cwd=place, env={**os.environ, "CI": ci}, stdout=subprocess.DEVNULL, timeout=60)
        reports = dict.fromkeys(tests, "")
        for case in ElementTree.parse(place / "report.xml").iter("testcase"):
            file = case.get("classname") or case.attrib["name"]  # a file that fails as a whole has no class
            for verdict in case:
                words = [verdict.tag, verdict.get("message", ""), verdict.text or ""]
                reports[file.removeprefix("test_").replace("_", " ")] += " ".join(words)
        return reports

    return inner


@pytest.fixture(scope="module")
def leaks(run: Run) -> dict[str, str]:
    """The reports of all leaks: one run for all of them, because starting pytest takes a second."""
    return run({name: test for name, (test, _) in LEAKS.items()} | TIDY, "")


@pytest.fixture(scope="module", params=["true", ""], ids=["CI", "elsewhere"])
def skips(run: Run, request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """The value of CI, and the reports under it."""
    return request.param, run(SKIPS | XFAIL, request.param)


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_an_error(leaks: dict[str, str], leak: str) -> None:
    """A test that leaks is reported, with the name of what it leaked."""
    assert LEAKS[leak][1] in leaks[leak]


@pytest.mark.parametrize("tidy", TIDY)
def test_a_tidy_test_passes(leaks: dict[str, str], tidy: str) -> None:
    """A test that leaves nothing behind is not blamed for what was there before."""
    assert not leaks[tidy].startswith(("error", "failure")), leaks[tidy]


@pytest.mark.parametrize("skip", SKIPS)
def test_no_skip_passes_in_ci(skips: tuple[str, dict[str, str]], skip: str) -> None:
    """Where CI is set, what would be skipped fails and names the reason; elsewhere it is a skip."""
    ci, reports = skips
    assert "no coffee" in reports[skip]
    assert ("nothing may be skipped where CI is set" in reports[skip]) == bool(ci)
    assert reports[skip].startswith("skipped") == (not ci)


def test_an_expected_failure_is_no_skip(skips: tuple[str, dict[str, str]]) -> None:
    """An expected failure (xfail) is neither a skip nor a failure, in CI or elsewhere."""
    _, reports = skips
    assert reports["an expected failure"].startswith("skipped")
