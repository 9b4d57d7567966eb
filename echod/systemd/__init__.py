"""Everything that echod sends to the service manager or receives from it.

    notify      status messages, such as READY=1, STATUS= and WATCHDOG=1
    listen_fds  the descriptors that systemd passes at a start
    fdstore     the descriptor store, which keeps descriptors for the next start

Without systemd nothing here has an effect.  All messages go through one `Notifier`.  Only the messages to the store may
block: each waits up to a second for room in systemd's queue, and `DescriptorStore.keeps` up to three more for systemd's
answer.  This package does not know listeners, settings or workers; it alone imports sdnotify.
"""
