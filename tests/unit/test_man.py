"""The man pages, README.md and etc/echod.toml: they agree with the code, and the pages are well formed."""

import inspect
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from echod.config.settings import keys
from echod.log.events import WORKER_DIED, EventLog
from echod.worker import session as connections
from generate.documents import PAGES, documents
from generate.pages import BLOCK, BLOCKS
from tests.unit.client.schema import validated

DOCUMENTS = documents()
MAN = Path(__file__).parents[2] / "packaging" / "man"
SCHEMA = MAN.parent / "echoc.schema.json"


def complaints(command: str, *arguments: str | Path) -> list[str]:
    """The complaints of a man page checker, on either stream."""
    if not shutil.which(command):
        pytest.skip(f"there is no {command}")
    result = subprocess.run([command, *arguments], capture_output=True, text=True)
    # About this machine: which other pages it has, and whether mandoc has an index of them.
    elsewhere = re.compile(r"referenced manual not found|mandoc\.db")
    return [line for line in (result.stdout + result.stderr).splitlines() if not elsewhere.search(line)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_repeat_the_code(path: Path) -> None:
    """`make docs` would change nothing: it was not forgotten, and its output was not edited by hand."""
    assert path.read_text() == DOCUMENTS[path], "make docs"


def test_every_generated_block_has_its_place() -> None:
    """Each block is in exactly one page, once, with a beginning and an end."""
    found = [match[2] for page in PAGES for match in BLOCK.finditer(page.read_text())]
    assert sorted(found) == sorted(BLOCKS)


def test_echoc_shows_one_valid_object_of_each_kind() -> None:
    """The examples of JSON in echoc(1) are as the schema says, one for each kind that it knows."""
    section = re.search(r"^\.Sh JSON\n(.*?)^\.Sh ", (MAN / "echoc.1").read_text(), re.DOTALL | re.MULTILINE)
    assert section is not None
    examples = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", section[1], re.DOTALL | re.MULTILINE)
    objects = validated("\n".join(typed(example).replace("\n", "") for example in examples).encode())
    kinds = json.loads(SCHEMA.read_text())["properties"]["kind"]["enum"]
    assert sorted(item["kind"] for item in objects) == sorted(kinds)


def test_every_key_is_documented_by_all_its_names() -> None:
    """echod.toml(5) has each key with its default, variable and flag, in the order of the model."""
    page = typed((MAN / "echod.toml.5").read_text())
    documented = re.findall(
        r"^\.It Va (\S+) No = (.+)\n(?:.*\n)+?Variable\n\.Ev (\S+) ,\nflag\n\.Fl (\S+) \.$", page, re.MULTILINE
    )
    assert documented == [(key.name, key.kind.show(key.default), key.variable, key.flag[1:]) for key in keys()]


def test_references_among_the_pages_lead_to_one() -> None:
    """Each reference to a page of echod or echoc leads to an existing page in that section."""
    found = {match for page in PAGES for match in re.findall(r"^\.Xr (echo\S+) (\d)", page.read_text(), re.MULTILINE)}
    assert found == {tuple(page.name.rsplit(".", 1)) for page in PAGES}


def typed(text: str) -> str:
    """Literal text of a page, with the escapes undone."""
    for escaped, char in {r"\-": "-", r"\(dq": '"', r"\(aq": "'", r"\e": "\\"}.items():
        text = text.replace(escaped, char)
    return text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestReaders:
    def test_mandoc(self, page: Path) -> None:
        """mandoc reports nothing, not even about the style."""
        assert complaints("mandoc", "-T", "lint", "-W", "style", page) == []

    def test_groff(self, page: Path) -> None:
        """groff reports nothing, with all warnings enabled."""
        assert complaints("groff", "-mdoc", "-T", "utf8", "-ww", "-z", page) == []


def section(page: str, title: str) -> str:
    """The text of a section or subsection of a page."""
    text = typed((MAN / page).read_text())
    return re.split(r"^\.S[hs] ", text.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_every_field_of_a_connection_is_explained() -> None:
    """echod-events(7) explains each field of `connection_closed` whose name does not say it all."""
    explained = re.findall(r"^\.It Va (\w+)$", section("echod-events.7", "Fields of connections"), re.MULTILINE)
    obvious = {"bytes_received", "bytes_sent", "chunks", "reason"}
    assert set(inspect.signature(EventLog.connection_closed).parameters) - {"self"} - obvious <= set(explained)


def test_every_reason_is_explained() -> None:
    """echod-events(7) explains each reason for closing a connection that the docstring of `session` lists."""
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^- (`.*?):", connections.__doc__ or "", re.MULTILINE)))
    explained = re.findall(
        r"\w+", " ".join(re.findall(r"^\.It (.*)$", section("echod-events.7", "Reasons"), re.MULTILINE))
    )
    assert set(explained) == {*listed, WORKER_DIED}


def test_every_guarantee_has_a_test() -> None:
    """Each test that echod-guarantees(7) names exists, and each of its entries names one."""
    tests = MAN.parents[1] / "tests"
    missing = []
    for entry in (MAN / "echod-guarantees.7").read_text().split("\n.It ")[1:]:
        named = re.findall(r"^\.Pa (\S+)::(\w+)", entry, re.MULTILINE)
        missing += [f"no test: {entry.splitlines()[0]}"] * (not named)
        for file, function in named:
            if not (tests / file).is_file() or f"def {function}(" not in (tests / file).read_text():
                missing.append(f"{file}::{function}")
    assert not missing
