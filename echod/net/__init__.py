"""Sockets, addresses and the event loop: the kernel's interfaces, in the form that echod needs.

    loop       the event loop: descriptors, timers, and the order in which both are served
    address    host names and socket addresses
    listeners  listening sockets, opened or adopted
    check      whether listening sockets could be opened
    holders    the processes that have a listening socket
    features   what a kernel or a sandbox may lack
    unixfile   the files of unix sockets
    sockopts   the options of a connection's socket
    tcpinfo    the kernel's counters of a connection's bytes

Nothing here depends on the echo service.
"""
