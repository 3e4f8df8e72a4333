"""How fast: the same work by diffeo, by other libraries, and by the bare networks inside (the floor).

    python -m benchmarks.speed [--only W1 ...] [--table]

runs every family of workloads in a process of its own, one thread, all libraries in turn round by round, and writes
benchmarks/results.jsonl, one row a measurement, docs/benchmarks.md and its figure. `make bench` sets up what it needs.
"""
