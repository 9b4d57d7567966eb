"""How a connection moves from one process to another without a byte lost.

    state   what is known of a connection besides its socket, and its form as JSON
    queue   connections on their way: to the next echod at a restart, to the next worker pool at a reload
    copies  the parent's copies of a worker's connections, for the day when that worker dies

Nothing here decides when a connection moves; `parent` and `worker` do.  Nothing that is read here is trusted.
"""
