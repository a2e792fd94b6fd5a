"""How fast quice is, beside its peers: see README.md."""
