"""`make bench`. Apart from `run`, which each measurement's process imports."""

from tests.benchmarks.run import main

main()
