"""Every public exception of quice. Each says what happened and what to do next."""

from __future__ import annotations


class Error(Exception):
    """The base of all errors that quice raises for reasons outside the calling program."""


class IdentityError(Error):
    """An identity could not be read."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"cannot use this identity: {detail}. Make a new one with Identity.generate() or `quice id`"
        )


class InvalidPeerIdError(Error, ValueError):
    """A text or key is not a peer id."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"not a peer id: {text[:80]!r}. A peer id has 52 characters of base32; `quice id` prints yours"
        )
