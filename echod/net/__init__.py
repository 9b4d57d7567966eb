"""Sockets, addresses and the event loop: what the kernel offers, in the form that echod needs.

    loop       the event loop: selectors, timers, and the order in which both are served
    address    host names and socket addresses
    listeners  listening sockets, opened or adopted
    unixfile   the files of unix sockets
    sockopts   the options of a connection's socket
    tcpinfo    what the kernel knows of a connection's bytes

Nothing here knows what an echo is.
"""
