"""zipapp.py SOURCE TARGET: pack echoc into one executable file that needs nothing but Python.

Not by Python's own zipapp module, which keeps the files' times and order, so that no two builds were alike.
"""

import sys
import zipfile
from pathlib import Path

# -I: neither the environment nor the working directory may add to what is imported.
SHEBANG = b"#!/usr/bin/python3 -I\n"
MAIN = "import sys\nfrom echod.client.cli import main\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive knows."""
EXECUTABLE = 0o755


def pack(package: Path, target: Path) -> None:
    """Pack the client in the directory `package`, which is echod's, into the executable `target`."""
    sources = [package / "__init__.py", *sorted((package / "client").glob("*.py"))]
    files = {"__main__.py": MAIN} | {str(path.relative_to(package.parent)): path.read_text() for path in sources}
    with target.open("wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(zipfile.ZipInfo(name, EPOCH), text, zipfile.ZIP_DEFLATED)
    target.chmod(EXECUTABLE)


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
