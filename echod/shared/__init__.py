"""What the parent and its workers both know.

    terms     the terms by which workers serve
    counters  counters in shared memory, one row per worker
    limits    who may connect, counted over all workers
    messages  every message between the two
    memory    all that the workers of a pool share

No code here waits, forks or knows which process it runs in.
"""
