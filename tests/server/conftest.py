"""Fixtures of every test here."""

from tests.server.peers import no_failure_goes_unseen, server

__all__ = ["no_failure_goes_unseen", "server"]
