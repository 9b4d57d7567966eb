"""Everything that echod sends to the service manager or receives from it.

    notify      status messages, such as READY=1, STATUS= and WATCHDOG=1
    listen_fds  the descriptors that systemd passes at a start
    fdstore     the descriptor store, which keeps descriptors for the next start

Without systemd nothing here has an effect.  All messages go through one `Notifier`.  Nothing blocks: a message for
which systemd's queue has no room waits until the loop sees room, and systemd's answer is an event of the loop too.
This package does not know listeners, settings or workers; it alone imports sdnotify.
"""
