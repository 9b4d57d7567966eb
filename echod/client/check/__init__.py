"""`echoc check`: one exchange, reported as a plugin of Nagios and Icinga reports it.

    command.py      the arguments, the probe, its line on standard output and its exit code
    threshold.py    the ranges of -w and -c

It follows the Monitoring Plugins Development Guidelines, and must not know about the other verbs.
"""
