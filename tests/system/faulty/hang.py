"""echod, but a loop never returns from a client with port 40007; a test copies this file beside the package."""

import os
import sys
import time
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))

from echod import cli
from echod.parent import pool
from echod.worker.process import Worker


class Hanging(Worker):
    def _on_accepted(self, sock: Any, sockaddr: Any, local: str) -> None:
        if sockaddr[1] == 40007:
            time.sleep(3600)
        super()._on_accepted(sock, sockaddr, local)


if __name__ == "__main__":
    pool.Worker = Hanging  # type: ignore[attr-defined]
    cli.main()
