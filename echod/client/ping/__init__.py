"""What `echoc ping` is made of: one message after another, and what became of each.

series.py   a ping: one message after another at an interval
idle.py     a ping: how long a quiet connection lives
link.py     a connection for that, made anew when it is lost
probe.py    one message there and back on a connection
outcome.py  what a ping has seen
report.py   where the lines of a ping go
"""
