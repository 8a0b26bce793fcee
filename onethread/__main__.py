"""`python -m onethread`."""

from onethread.cli import main

main()
