"""How a connection moves from one process to another without losing a byte.

    state   what is known of a connection besides its socket, and its form as JSON
    queue   connections on their way: to the next echod at a restart, to the next worker pool at a reload
    copies  the parent's copies of a worker's connections, for the case that the worker dies

Giving connections away is `hand_over`, and receiving them is `take_over`.  `parent` and `worker` decide when.  Nothing
that is read here is trusted.  Only `queue.open_queue` blocks, until systemd has answered, and in a worker
`CopySender.finish`, until the parent has received all.
"""
