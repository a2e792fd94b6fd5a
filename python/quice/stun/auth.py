"""STUN credentials: keys, and the long-term mechanism's conversation with the server (RFC 8489 §9)."""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import unicodedata
from dataclasses import dataclass, replace

from quice.stun.attributes import (
    Attribute,
    Nonce,
    PasswordAlgorithm,
    PasswordAlgorithmChoice,
    PasswordAlgorithms,
    Realm,
    Userhash,
    Username,
)
from quice.stun.message import Message

# RFC 8489 §9.2: a nonce that starts so carries security features in the four characters that follow.
_NONCE_COOKIE = b"obMatJos2"
_ALL_FEATURES = 0b11
_UNAUTHENTICATED = 401


class SecurityFeature(enum.IntFlag):
    """What a server's nonce says that the server can do, so that nobody can take it away unnoticed (§9.2.1).

    The text of §18.1 counts the bits from the left. Verified erratum 6290 has it the other way round, as the
    nonce of appendix B.1 and the servers in use do.
    """

    PASSWORD_ALGORITHMS = 1
    USERNAME_ANONYMITY = 2


def opaque_string(text: str) -> bytes:
    """A user name or password as it enters a key: the OpaqueString profile (RFC 8265 §4.2), in UTF-8.

    Raises `ValueError` for what the profile does not allow: the empty string and control characters.
    """
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in text)
    prepared = unicodedata.normalize("NFC", spaced)
    if not prepared or any(unicodedata.category(c) == "Cc" for c in prepared):
        raise ValueError("empty, or with control characters")
    return prepared.encode("utf-8")


def short_term_key(password: str) -> bytes:
    """The HMAC key for a password that two parties share for one session (§9.1.1). Raises as `opaque_string`."""
    return opaque_string(password)


def long_term_key(
    username: str, realm: str, password: str, algorithm: PasswordAlgorithm = PasswordAlgorithm.MD5
) -> bytes:
    """The HMAC key of an account (§9.2.2, §18.5.1). Raises as `opaque_string`."""
    text = b":".join((_bare(username), _bare(realm), opaque_string(password.rstrip("\0"))))
    if algorithm is PasswordAlgorithm.SHA256:
        return hashlib.sha256(text).digest()
    # RFC 8489 §18.5.1.1 defines the key by MD5; nothing rests on its resistance to collisions.
    return hashlib.md5(text, usedforsecurity=False).digest()


def userhash(username: str, realm: str) -> bytes:
    """The value of USERHASH, which hides the user name (§14.4). Raises as `opaque_string`."""
    return hashlib.sha256(opaque_string(username) + b":" + opaque_string(realm)).digest()


def _bare(text: str) -> bytes:
    """§9.2.2: user name and realm enter the key without quotes around them and zeros behind."""
    return opaque_string(text.rstrip("\0").strip('"'))


def nonce_cookie(features: SecurityFeature) -> bytes:
    """The 13 bytes that a server's nonce begins with (§9.2)."""
    return _NONCE_COOKIE + base64.b64encode(features.to_bytes(3, "big"))


def security_features(nonce: bytes) -> SecurityFeature:
    """The features that a nonce carries; none without the nonce cookie."""
    start = len(_NONCE_COOKIE)
    if not nonce.startswith(_NONCE_COOKIE):
        return SecurityFeature(0)
    try:
        bits = base64.b64decode(nonce[start : start + 4], validate=True)
    except binascii.Error:
        return SecurityFeature(0)
    return SecurityFeature(int.from_bytes(bits, "big") & _ALL_FEATURES)


def is_bid_down(response: Message) -> bool:
    """Whether somebody removed the list of password algorithms that the response's nonce vouches for (§9.2.5)."""
    nonce = response.get(Nonce)
    return (
        nonce is not None
        and SecurityFeature.PASSWORD_ALGORITHMS in security_features(nonce.value)
        and response.get(PasswordAlgorithms) is None
    )


@dataclass(frozen=True)
class ShortTerm:
    """Credentials of one session: both sides know them beforehand."""

    username: str
    password: str

    def __post_init__(self) -> None:
        """Raises `ValueError` for a user name or password that is empty or has control characters."""
        opaque_string(self.username)
        opaque_string(self.password)

    @property
    def key(self) -> bytes:
        return short_term_key(self.password)

    def attributes(self) -> tuple[Attribute, ...]:
        return (Username(opaque_string(self.username).decode()),)


@dataclass(frozen=True)
class LongTerm:
    """An account's credentials, with what the server has said so far: realm, nonce, algorithms.

    The first request goes without them; the server's 401 gives realm and nonce, a 438 a new nonce.
    """

    username: str
    password: str
    realm: str = ""
    nonce: bytes = b""
    algorithms: tuple[tuple[int, bytes], ...] = ()

    def __post_init__(self) -> None:
        """Raises `ValueError` for a user name or password that is empty or has control characters."""
        userhash(self.username, "realm")
        long_term_key(self.username, "realm", self.password)

    def challenged(self, response: Message) -> LongTerm | None:
        """These credentials with what a 401 or 438 says, or None when trying again makes no sense (§9.2.5)."""
        nonce = response.get(Nonce)
        if nonce is None or not nonce.value or is_bid_down(response):
            return None
        offered = response.get(PasswordAlgorithms)
        # A list once seen stays: from then on nothing but MESSAGE-INTEGRITY-SHA256 may be used.
        algorithms = offered.algorithms if offered is not None else self.algorithms
        if offered is not None and _supported(algorithms) is None:
            return None
        named = response.get(Realm)
        realm = named.value if named is not None else self.realm
        if response.error.code == _UNAUTHENTICATED and self.nonce and realm == self.realm:
            # These credentials have been refused in this realm; the same again would be too.
            return None
        try:
            # What raises here would raise when the next request is composed.
            userhash(self.username, realm)
            long_term_key(self.username, realm, self.password)
        except ValueError:
            return None
        renewed = replace(self, realm=realm, nonce=nonce.value, algorithms=algorithms)
        return renewed if renewed != self else None

    @property
    def algorithm(self) -> PasswordAlgorithm:
        """The server's first algorithm that we know; MD5 when it names none."""
        return _supported(self.algorithms) or PasswordAlgorithm.MD5

    @property
    def key(self) -> bytes:
        return long_term_key(self.username, self.realm, self.password, self.algorithm)

    def attributes(self) -> tuple[Attribute, ...]:
        anonymous = SecurityFeature.USERNAME_ANONYMITY in security_features(self.nonce)
        user: Attribute = (
            Userhash(userhash(self.username, self.realm))
            if anonymous
            else Username(opaque_string(self.username).decode())
        )
        chosen: tuple[Attribute, ...] = ()
        if self.algorithms:
            chosen = (PasswordAlgorithms(self.algorithms), PasswordAlgorithmChoice(self.algorithm))
        return (user, Realm(self.realm), Nonce(self.nonce), *chosen)


def _supported(algorithms: tuple[tuple[int, bytes], ...]) -> PasswordAlgorithm | None:
    """The first of the algorithms that we know. Neither has parameters (§18.5.1)."""
    for number, parameters in algorithms:
        if number in PasswordAlgorithm.__members__.values() and not parameters:
            return PasswordAlgorithm(number)
    return None
