"""echoc, the client: sends bytes to an echo service (RFC 862) and says whether the same bytes came back.

Standard library only, and of echod nothing but its version: the package also runs by itself.

    cli.py              argv -> a verb -> exit code
    verbs/send.py       send something, print the echo, and say whether it is identical
    verbs/ping.py       one small message after another, and how long each took
    verbs/load.py       as many as the server takes, or so many a second
    verbs/check.py      one probe, for monitoring
    ping/               what the verb ping is made of
    load/               what the verb load is made of
    options.py          what all verbs take on their command lines
    connect.py          a target -> a connected socket
    resolver.py         a target -> the addresses to try
    target.py           HOST and PORT, in all the forms in which they are written
    echo.py             send, receive and compare at the same time, on a connected socket
    backlog.py          the bytes that were sent and have not come back
    pattern.py          bytes to send that tell where in the stream they belong
    histogram.py        times, counted
    threshold.py        ranges outside which a time is an alert
    output.py           standard output and standard error
    faults.py           what can go wrong, as sentences with an exit code
    words.py            bytes and sockets as text
"""
