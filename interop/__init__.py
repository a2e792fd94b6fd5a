"""Other ICE agents against ours: see docs/interop.md."""
