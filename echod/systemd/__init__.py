"""Everything that echod sends to the service manager or gets from it.

    notify      status messages: READY=1, STATUS=, WATCHDOG=1 and the like
    listen_fds  the descriptors that systemd passes at a start
    fdstore     the descriptor store, which keeps descriptors for the next start

Without systemd nothing here has an effect.  All messages go through one `Notifier`.  Only the messages to the store may
block: each waits up to a second for room in systemd's queue, and `DescriptorStore.keeps` up to three more for systemd's
answer.  This package knows no listeners, settings or workers; it is the only importer of sdnotify.
"""
