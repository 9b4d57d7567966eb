"""README.md: its length, and the parts of it that the code knows."""

from pathlib import Path

from generate.facts import status_line

README = (Path(__file__).parents[2] / "README.md").read_text()
LINES_MAX = 220


def test_it_is_short_enough_to_be_read() -> None:
    """The README has at most 220 lines; reference belongs in the man pages."""
    assert len(README.splitlines()) <= LINES_MAX


def test_the_status_agrees_with_the_commands_before_it() -> None:
    """The sample of `systemctl status` counts the one client and the five bytes of the command that precedes it."""
    commands = "$ echoc -m hello\nhello\n$ systemctl status -n 0 echod\n"
    before, found, after = README.partition(commands)
    assert found
    assert "\n$ echoc" not in before
    assert f'Status: "{status_line()}"\n' in after.partition("```")[0]
