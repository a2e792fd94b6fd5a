"""The services that peers need to find each other."""

from quice.server.app import Server

__all__ = ["Server"]
