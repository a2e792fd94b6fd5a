"""`python -m quice`: the command, where its script is not on the path."""

from __future__ import annotations

from quice.cli import main

if __name__ == "__main__":
    main()
