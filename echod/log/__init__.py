"""Events: one JSON object per line, or one entry of systemd's journal.

    events      one method for each event, with its fields and its sentence; nothing is logged in any other way
    words       counts, sizes, durations and lists as people read them
    formatters  an event as JSON, or as a line for a person
    output      a bounded queue in front of standard error or the journal, written without waiting
    journald    the native protocol of systemd's journal

Logging never blocks an event loop.  This package imports none of the packages that log; it is the only importer of
python-json-logger.
"""
