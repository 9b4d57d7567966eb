"""Every file that repeats something from the code, with its right text.

In a man page that is the text between `.\\" begin generated: NAME` and `.\\" end generated`; in README.md what it shows
of `systemctl status`; in etc/echod.toml all below the first paragraph.  The rest is written by hand, and kept.
"""

from pathlib import Path

from generate import pages, samples

PACKAGING = Path(__file__).parents[1]
ROOT = PACKAGING.parent
PAGES = sorted((PACKAGING / "man").glob("*.[1-8]"))
README = ROOT / "README.md"
SAMPLE = ROOT / "etc" / "echod.toml"


def documents() -> dict[Path, str]:
    """The files, each with the text that it should have."""
    found = {path: pages.page(path.read_text()) for path in PAGES}
    found[README] = samples.readme(README.read_text())
    found[SAMPLE] = samples.sample(SAMPLE.read_text())
    return found


def main() -> None:
    """Write the files whose text is out of date."""
    for path, text in documents().items():
        if not path.exists() or text != path.read_text():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
