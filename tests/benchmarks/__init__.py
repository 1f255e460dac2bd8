"""How fast fdiff is, and how much memory it takes: `python -m tests.benchmarks` runs every case and writes a table."""
