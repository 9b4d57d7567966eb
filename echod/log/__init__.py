"""Events: one JSON object per line, or one entry of systemd's journal.

    events      one method for each event, with its fields and its sentence; nothing is logged in any other way
    words       counts, sizes, durations and lists in readable form
    formatters  an event as JSON, or as a readable line
    output      a bounded queue in front of standard error or the journal, which never waits for room
    journald    the native protocol of systemd's journal

Logging never blocks an event loop.  This package imports none of the packages that log, and it alone imports
python-json-logger.
"""
