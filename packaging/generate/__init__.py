"""`make docs`: update from the code whatever the documents repeat of it.

documents.py    every file that repeats something from the code
pages.py        the blocks of the man pages
samples.py      README.md's sample of a status, and etc/echod.toml
arguments.py    names, values and meaning of a parser's arguments
facts.py        events, levels, exit statuses, and samples of what echod says
mdoc.py         text -> mdoc(7)
"""
