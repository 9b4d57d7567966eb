"""`echoc ping`: one small message after another, timed, with output like that of ping(8).

    command.py      the arguments, and the run from the first connection to the summary
    series.py       one message after another at an interval
    idle.py         --idle: how long an idle connection lives
    sweep.py        --sweep: the largest message that passes
    statistics.py   what a series counts, and its summary
    report.py       printing lines, as text or as JSON
    connection.py   a message and its echo on a connection, which is made again after a loss

A run is a `Series`, an `IdleSearch` or a `SizeSearch`.  None knows about sockets: connection.py alone does.  The
package must not know about the other verbs.
"""
