"""`echoc load`: many connections at once, every byte compared, and rates, latencies and errors reported.

    command.py      the run, from the first connection to the result
    arguments.py    the arguments
    pool.py         the processes of a load, and their results
    generator.py    one of these processes: its connections, the messages that are due, its reports
    modes.py        what a connection does in each mode
    connection.py   connecting, closing, failing and connecting again
    transfer.py     sending, receiving and comparing the bytes of a connection
    plan.py         the plan of a load, which all processes share
    tally.py        the counters and times of a load, which can be added up
    summary.py      the result as text and as the fields of JSON
    loop.py         the event loop of a load process

A process knows the plan and the socket to its parent, and nothing about the command line or the output.  The package
must not know about the other verbs.
"""
