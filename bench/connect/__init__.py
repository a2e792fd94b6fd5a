"""How long connecting takes, in the lab and beside others: see bench/README.md."""
