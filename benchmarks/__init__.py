"""Benchmarks: ratios against a peer or a limit, taken in one run. `make bench` writes docs/benchmarks.md."""
