"""Files and folders over a quice connection."""
