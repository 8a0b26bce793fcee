"""Measurements: each figure beside a reference of the same run. `make bench` prints them; nothing here runs in `make test`."""
