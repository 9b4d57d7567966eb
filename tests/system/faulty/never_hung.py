"""echod, but no worker counts as hung, however long it is stopped; a test copies this file beside the package."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))

from echod import cli
from echod.parent import slot

if __name__ == "__main__":
    slot.HUNG = slot.UNWELL = 1 << 30
    cli.main()
