"""Every file that repeats something of the code, as it should be.

In a man page that is the text between `.\\" begin generated: NAME` and `.\\" end generated`; in README.md what it shows
of `systemctl status`; in etc/echod.toml all below the first paragraph.  The rest is kept as it is.  What a shell reads
to complete command lines is written whole.
"""

from pathlib import Path

from generate import bash, pages, samples, zsh
from generate.completions import programs

PACKAGING = Path(__file__).parents[1]
ROOT = PACKAGING.parent
PAGES = sorted((PACKAGING / "man").glob("*.[1-8]"))
README = ROOT / "README.md"
SAMPLE = ROOT / "etc" / "echod.toml"


def documents() -> dict[Path, str]:
    """The files with the text that each should have."""
    found = {path: pages.page(path.read_text()) for path in PAGES}
    found[README] = samples.readme(README.read_text())
    found[SAMPLE] = samples.sample(SAMPLE.read_text())
    for program in programs():
        found[PACKAGING / "completions" / "bash" / program.name] = bash.script(program)
        found[PACKAGING / "completions" / "zsh" / f"_{program.name}"] = zsh.script(program)
    return found


def main() -> None:
    """Write the files that are not as they should be."""
    for path, text in documents().items():
        if not path.exists() or text != path.read_text():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
