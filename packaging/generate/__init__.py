"""`make docs`: write what is repeated of the code, from the code.

documents.py    every file in which something is repeated, as it should be
pages.py        the blocks of the man pages
tables.py       README.md's tables, and etc/echod.toml
schema.py       the fields of what `echoc --json` prints
arguments.py    what a parser's argument is called, takes and means
facts.py        events, levels, exit statuses
mdoc.py         text -> mdoc(7)
"""
