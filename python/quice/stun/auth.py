"""STUN credentials: keys, and the long-term mechanism's conversation with the server (RFC 8489 §9)."""

from __future__ import annotations

import base64
import binascii
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
_FEATURE_PASSWORD_ALGORITHMS = 1 << 23
_FEATURE_USERNAME_ANONYMITY = 1 << 22


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
    """The HMAC key for a password that two parties share for one session (§9.1.1)."""
    return opaque_string(password)


def long_term_key(
    username: str, realm: str, password: str, algorithm: PasswordAlgorithm = PasswordAlgorithm.MD5
) -> bytes:
    """The HMAC key of an account (§9.2.2, §18.5.1)."""
    text = b":".join((username.encode("utf-8"), opaque_string(realm), opaque_string(password)))
    if algorithm is PasswordAlgorithm.SHA256:
        return hashlib.sha256(text).digest()
    # RFC 8489 §18.5.1.1 defines the key by MD5; nothing rests on its resistance to collisions.
    return hashlib.md5(text, usedforsecurity=False).digest()


def userhash(username: str, realm: str) -> bytes:
    """The value of USERHASH, which hides the user name (§14.4)."""
    return hashlib.sha256(username.encode("utf-8") + b":" + opaque_string(realm)).digest()


def security_features(nonce: bytes) -> int:
    """The 24 bits of security features in a nonce, bit 0 the highest (§18.1); 0 without the nonce cookie."""
    if not nonce.startswith(_NONCE_COOKIE):
        return 0
    try:
        return int.from_bytes(base64.b64decode(nonce[9:13], validate=True), "big")
    except binascii.Error:
        return 0


@dataclass(frozen=True)
class ShortTerm:
    """Credentials of one session: both sides know them beforehand."""

    username: str
    password: str

    @property
    def key(self) -> bytes:
        return short_term_key(self.password)

    def attributes(self) -> tuple[Attribute, ...]:
        return (Username(self.username),)


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

    def challenged(self, response: Message) -> LongTerm | None:
        """These credentials with what a 401 or 438 says, or None when trying again makes no sense (§9.2.5)."""
        nonce = response.get(Nonce)
        if nonce is None:
            return None
        realm = response.get(Realm)
        offered = response.get(PasswordAlgorithms)
        algorithms = offered.algorithms if offered is not None else ()
        if bool(security_features(nonce.value) & _FEATURE_PASSWORD_ALGORITHMS) != bool(algorithms):
            # §9.2.5: a bid-down attack removes the list but can't change the nonce.
            return None
        renewed = replace(
            self,
            realm=realm.value if realm is not None else self.realm,
            nonce=nonce.value,
            algorithms=algorithms,
        )
        return renewed if renewed.realm and renewed != self else None

    @property
    def algorithm(self) -> PasswordAlgorithm:
        """The server's first algorithm that we know; MD5 when it names none."""
        known = [number for number, _ in self.algorithms if number in PasswordAlgorithm.__members__.values()]
        return PasswordAlgorithm(known[0]) if known else PasswordAlgorithm.MD5

    @property
    def key(self) -> bytes:
        return long_term_key(self.username, self.realm, self.password, self.algorithm)

    def attributes(self) -> tuple[Attribute, ...]:
        anonymous = security_features(self.nonce) & _FEATURE_USERNAME_ANONYMITY
        user: Attribute = Userhash(userhash(self.username, self.realm)) if anonymous else Username(self.username)
        chosen: tuple[Attribute, ...] = ()
        if self.algorithms:
            chosen = (PasswordAlgorithms(self.algorithms), PasswordAlgorithmChoice(self.algorithm))
        return (user, Realm(self.realm), Nonce(self.nonce), *chosen)
