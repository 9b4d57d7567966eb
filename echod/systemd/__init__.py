"""Everything that echod sends to the service manager or takes from it.

    notify   READY=1, STATUS=, WATCHDOG=1 and the like; passed sockets; the descriptor store

Without systemd nothing here does anything.  This package knows no sockets, settings or workers; it is the only
importer of sdnotify.
"""
