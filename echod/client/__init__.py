"""echoc, the client: sends bytes to an echo service (RFC 862) and says whether the same bytes came back.

Standard library only, and of echod nothing but its version: the package also runs by itself, as one file.

    cli.py      argv -> open -> exchange -> exit code
    echo.py     send, receive and compare at the same time, on a connected socket
    backlog.py  the bytes that were sent and have not come back
    connect.py  HOST and PORT -> a connected socket
    output.py   standard output and standard error
    words.py    bytes and sockets as text
    faults.py   what can go wrong, as sentences with an exit code
"""
