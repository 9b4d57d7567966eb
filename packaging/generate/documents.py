"""Every file in which something is repeated of the code, as it should be.

In a man page that is what stands between `.\\" begin generated: NAME` and `.\\" end generated`; in README.md two
tables, known by their first lines; in etc/echod.toml all below the first paragraph.  The rest is kept as it is.
"""

from pathlib import Path

from generate import pages, tables

PACKAGING = Path(__file__).parents[1]
ROOT = PACKAGING.parent
PAGES = [PACKAGING / "man" / name for name in ("echod.8", "echod.toml.5", "echoc.1")]
README = ROOT / "README.md"
SAMPLE = ROOT / "etc" / "echod.toml"


def documents() -> dict[Path, str]:
    """The files with the text that each should have."""
    found = {path: pages.page(path.read_text()) for path in PAGES}
    found[README] = tables.readme(README.read_text())
    found[SAMPLE] = tables.sample(SAMPLE.read_text())
    return found


def main() -> None:
    """Write the files that are not as they should be."""
    for path, text in documents().items():
        if not path.exists() or text != path.read_text():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
