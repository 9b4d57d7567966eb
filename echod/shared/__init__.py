"""What the parent and its workers both use.

    terms     the terms by which workers serve
    counters  counters in shared memory, one row per worker
    limits    limits on connections, counted over all workers
    messages  every message between the parent and a worker
    memory    everything that the workers of a pool share

No code here waits, forks or knows which process it runs in.
"""
