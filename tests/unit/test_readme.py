"""README.md: what it says of the settings is what they are."""

from pathlib import Path

from echod.config.settings import keys

README = Path(__file__).parents[2] / "README.md"
HEADER = "| Key | Default | Variable | Flag |"


def test_every_key_is_documented_by_all_its_names() -> None:
    """The table of settings has each key with its default, variable and flag, in the order of the model."""
    _, header, table = README.read_text().partition(HEADER + "\n")
    assert header, f"README.md has no table that begins with {HEADER}"
    expected = [
        f"| `{key.name}` | `{key.kind.show(key.default)}` | `{key.variable}` | `{key.flag}` |" for key in keys()
    ]
    assert table.partition("\n\n")[0].splitlines()[1:] == expected
