"""How a connection moves from one process to another without losing a byte.

    state   the state of a connection besides its socket, and its form as JSON
    queue   the queue of connections to the next echod at a restart, or to the next worker pool at a reload
    copies  the parent's copies of a worker's connections, in case the worker dies

`hand_over` gives connections away, and `take_over` receives them; `parent` and `worker` decide when.  No input is
trusted here.  Only one call blocks: `CopySender.finish` in a worker, until the parent has received everything.
"""
