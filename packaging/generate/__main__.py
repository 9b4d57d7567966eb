"""`python -m generate`."""

from generate.documents import main

main()
