"""echoc, the client: sends bytes to an echo service (RFC 862) and says whether the same bytes came back.

Standard library only, and of echod nothing but its version: the package also runs by itself.

    cli.py        argv -> a verb -> exit code
    send.py       send something, print the echo, and say whether it is identical
    ping.py       one small message after another, and how long each took
    load.py       as many as the server takes, or so many a second
    check.py      one probe, for monitoring
    options.py    what all verbs take on their command lines
    connect.py    a target -> a connected socket
    target.py     HOST and PORT, in all the forms in which they are written
    echo.py       send, receive and compare at the same time, on a connected socket
    crew.py       the processes of a load
    generator.py  one of them: its connections, what is due, and reports
    modes.py      what a load does with each connection
    flow.py       a load's connection, with one life after the other
    wire.py       the bytes of one life: sent, received and compared
    plan.py       what is asked of a load
    loop.py       descriptors, and times at which something is to be done
    tally.py      what a load has seen, as numbers that can be added up
    summary.py    those numbers, as text and as JSON
    chart.py      a histogram as lines of text
    series.py     a ping: one message after another at an interval
    idle.py       a ping: how long a quiet connection lives
    link.py       a connection for that, made anew when it is lost
    probe.py      one message there and back on a connection
    outcome.py    what a ping has seen
    report.py     where the lines of a ping go
    backlog.py    the bytes that were sent and have not come back
    pattern.py    bytes to send that tell where in the stream they belong
    histogram.py  times, counted
    threshold.py  ranges outside which a time is an alert
    output.py     standard output and standard error
    faults.py     what can go wrong, as sentences with an exit code
    words.py      bytes and sockets as text
"""
