"""Measurements, each figure beside a reference of the same run. `make bench` runs them and writes docs/benchmarks.md.

A measurement is a module: its docstring is what the page says about it, `measure(size)` gives its figures, `FULL` and `QUICK` are its
sizes. It runs in a process of its own, so that none warms up or burdens the next.
"""
