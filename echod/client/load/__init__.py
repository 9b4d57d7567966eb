"""What `echoc load` is made of: processes, each with many connections on one loop.

crew.py       the processes of a load
generator.py  one of them: its connections, what is due, and reports
modes.py      what a load does with each connection
flow.py       a load's connection, with one life after the other
wire.py       the bytes of one life: sent, received and compared
plan.py       what is asked of a load
loop.py       descriptors, and times at which something is to be done
tally.py      what a load has seen, as numbers that can be added up
summary.py    those numbers, as text and as JSON
chart.py      a histogram as lines of text
"""
