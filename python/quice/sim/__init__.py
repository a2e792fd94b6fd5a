"""A simulated internet in one process, on virtual time: hosts, NATs and links, on which quice runs unchanged."""
