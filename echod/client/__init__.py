"""echoc, the client: sends bytes to an echo service (RFC 862) and checks that the same bytes come back.

It is for users of any echo service, monitoring systems and load tests.  It uses the standard library only, and nothing
of echod except the version number, so it can be installed without the daemon; it must not know how the daemon works.
Start with cli.py, then read one verb.  Imports go downward in this list, and no verb imports another:

    cli.py          the command line: argv -> a verb -> an exit code

    send.py         the verb send: one exchange, its echo printed
    check/          the verb check: one exchange, as a monitoring plugin
    ping/           the verb ping: one small message after another, timed
    load/           the verb load: many connections, rates and latencies

    options.py      the command-line arguments that all verbs share
    connect.py      resolving names, and connecting to the first address that answers
    exchange.py     send, receive and compare at the same time, on one connected socket

    compare.py      the bytes to send, and their comparison with the echo
    spool.py        a queue of bytes, partly on disk
    target.py       HOST and PORT in all their forms
    output.py       standard output and standard error
    histogram.py    times, counted in buckets

    transport.py    TCP and unix sockets: opening one, and what the kernel knows about it

    errors.py       everything that can fail, as exceptions with a sentence and an exit code
    text.py         bytes, counts and addresses as text

echoc must start fast, so a package's `__init__` imports nothing, and a module that is slow to import or rarely needed
is imported by the function that uses it.
"""
