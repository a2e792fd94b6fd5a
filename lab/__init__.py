"""Networks of real kernel NATs to test in: see docs/lab.md."""
