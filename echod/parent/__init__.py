"""The parent process: it owns the listening sockets, the worker pool and the signals, and communicates with systemd.

    supervisor   the parent itself: its actions in each state
    lifecycle    the states and every transition between them; read this first
    reading      a child process that reads the configuration and resolves host names
    reload       from settings to terms, at startup and at each reload
    last_good    the settings in effect, stored for the next echod, which begins with them
    listening    the listening sockets: opened, stored, retired and closed
    pool         the workers that serve together: started, watched, replaced
    slot         one worker slot: its process, its command socket, and whether it is alive
    pending      connections that wait for a worker
    replacement  one pool takes over from another
    status       the sentence for `systemctl status`, and when to send it
    signals      signals as events of a loop
    orphans      reaps the processes that echod did not start, as PID 1

It never touches a client's bytes, so nothing that a client sends can harm it.  It waits for nothing while it serves: a
child process reads what may block, files and host names.
"""
