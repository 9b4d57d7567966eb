"""Events: one JSON object per line, or one entry of systemd's journal.

    events      one method for each event; nothing is logged in any other way
    formatters  an event as JSON, or as a line for a person
    output      a bounded queue in front of a descriptor that is never waited for
    journald    the native protocol of systemd's journal

Logging never blocks a loop.  This package knows none of those that log; it is the only importer of python-json-logger.
"""
