"""The daemon under test with faults: `python -m tests.integration.faulty FAULTS ARGUMENT...` (`faults.dump`)."""

import sys

from echod import cli
from tests.integration import faults

if __name__ == "__main__":
    faults.apply(sys.argv.pop(1))
    cli.main()
