"""A worker process: one loop that accepts connections and echoes what they send.

    process   the worker: commands, draining and exit
    acceptor  which connections to accept, and when to pause
    balance   which worker accepts next
    session   one connection, from accept(2) to close(2)
    state     what a session waits for, and which states may follow
    relay     the hot path: read a chunk, send it back
    sweep     one look at each session in every round: counters, time-outs, memory
    stall     whether a client has stopped acknowledging
    memory    which connections to reset when slow clients occupy too much kernel memory
    quiet     whether a client that is drained has finished
    tracing   a socket that logs each chunk, for debugging

A worker knows nothing of settings, systemd or other workers; the parent sends it terms to serve by.
"""
