"""As PID 1, in a container, reap processes that echod did not start.

The kernel gives every process whose parent has exited to PID 1 of its PID namespace, such as those of `docker exec`
(pid_namespaces(7)).  If PID 1 does not wait for them, they stay as zombies, until the container can start no process.
"""

import os
from collections.abc import Collection

_IS_PID_1 = os.getpid() == 1


def reap_orphans(children: Collection[int]) -> None:
    """As PID 1, reap all processes that have exited, except `children`, whose exit status is needed.  Does not wait.

    If one of `children` has exited too, processes after it are left for the next call: waitid(2) cannot skip it.
    """
    while _IS_PID_1:
        try:
            # WNOWAIT: look first, because waiting for one of `children` here would lose its exit status.
            exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if exited is None or exited.si_pid in children:
            return
        os.waitpid(exited.si_pid, os.WNOHANG)
