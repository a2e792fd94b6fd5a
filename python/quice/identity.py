"""A peer's identity: an Ed25519 key pair, and the public key as the peer's name."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from quice.errors import IdentityError, InvalidPeerIdError

_KEY_LENGTH = 32
_TEXT_LENGTH = 52
_HEADER = "quice-ed25519-v1:"
_ANOTHER = "Name another file: where there is none yet, `quice id` and Identity.load_or_generate() make one"
# RFC 7748 §4.1: curve25519 is v² = u³ + Au² + u over the integers modulo P.
_P = (1 << 255) - 19
_A = 486662
_ORDER_8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
# The points of low order by their y coordinates: 4, 1, 2 and 8.
_LOW_ORDER = frozenset((0, 1, _P - 1, _ORDER_8, _P - _ORDER_8))


@dataclass(frozen=True, order=True)
class PeerId:
    """A peer's name: its Ed25519 public key (32 bytes), written as 52 characters of lower-case base32.

    Two ids are ordered by their bytes. Raises `InvalidPeerIdError` when `key` is not 32 bytes long.
    """

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != _KEY_LENGTH:
            raise InvalidPeerIdError(self.key.hex())

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Read the text form. Raises `InvalidPeerIdError` on anything but 52 characters of base32."""
        try:
            key = base64.b32decode(text.strip().upper() + "====")
        except ValueError as error:
            raise InvalidPeerIdError(text) from error
        if len(text.strip()) != _TEXT_LENGTH or str(cls(key)) != text.strip().lower():
            raise InvalidPeerIdError(text)
        return cls(key)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) is this peer's over `message`. Never raises."""
        if _coordinate(self.key) is None:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def agreement_key(self) -> X25519PublicKey:
        """The X25519 key that goes with this Ed25519 one: what is encrypted to it, the peer can read.

        Raises `InvalidPeerIdError` for 32 bytes that are no point of the curve or not its canonical form, and for the
        points of low order, with which anybody agrees on the same secret.
        """
        u = _montgomery(self.key)
        if u is None:
            raise InvalidPeerIdError(str(self))
        return X25519PublicKey.from_public_bytes(u)

    def __str__(self) -> str:
        return base64.b32encode(self.key).decode("ascii").rstrip("=").lower()

    def __repr__(self) -> str:
        return f"PeerId({str(self)!r})"


class Identity:
    """A peer's secret Ed25519 key. Whoever holds it is that peer: keep the file it is saved in private."""

    def __init__(self, secret_key: bytes) -> None:
        """`secret_key`: the 32-byte Ed25519 seed. Raises `IdentityError` when it has another length."""
        if len(secret_key) != _KEY_LENGTH:
            raise IdentityError("a secret key has 32 bytes")
        self._private = Ed25519PrivateKey.from_private_bytes(secret_key)
        self.secret_key = secret_key
        # RFC 8032 §5.1.5: the secret scalar is the first half of the hash, clamped, which X25519 itself does.
        self.agreement_key = X25519PrivateKey.from_private_bytes(hashlib.sha512(secret_key).digest()[:_KEY_LENGTH])
        """The X25519 key that goes with `peer.agreement_key()`."""
        self.peer = PeerId(self._private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Identity:
        """Make a new identity from the system's randomness."""
        return cls(os.urandom(_KEY_LENGTH))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Identity:
        """Read an identity that `save` wrote. Raises `IdentityError` when the file is missing or not one."""
        try:
            text = Path(path).read_text("ascii")
        except OSError as error:
            raise IdentityError(f"{os.fspath(path)}: {error.strerror or error}", _ANOTHER) from error
        except UnicodeDecodeError:
            text = ""
        if not text.startswith(_HEADER):
            raise IdentityError(f"{os.fspath(path)} does not hold a quice identity", _ANOTHER)
        try:
            return cls(bytes.fromhex(text[len(_HEADER) :].strip()))
        except ValueError as error:
            raise IdentityError(f"{os.fspath(path)} is damaged", _ANOTHER) from error

    @classmethod
    def load_or_generate(cls, path: str | os.PathLike[str]) -> Identity:
        """Read the identity at `path`, or make one and save it there when nothing is there yet.

        Of several programs that do so at once, one makes it and all have the same. Raises `IdentityError`.
        """
        if not os.path.lexists(path):
            try:
                identity = cls.generate()
                identity.save(path)
            except FileExistsError:
                pass
            except OSError as error:
                detail = f"it can't be saved as {os.fspath(path)}: {error.strerror or error}"
                raise IdentityError(detail, "Name a file that can be written") from error
            else:
                return identity
        return cls.load(path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the secret key to a new file of mode 0600, whole or not at all.

        Raises `FileExistsError` rather than overwrite, and other `OSError`s of the file system.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, written = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{_HEADER}{self.secret_key.hex()}\n")
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename, a link never replaces what is there.
            os.link(written, target)
        finally:
            os.unlink(written)

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature (64 bytes) over `message`."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"Identity(peer={str(self.peer)!r})"


def _coordinate(key: bytes) -> int | None:
    """The y coordinate of an Ed25519 key (RFC 8032 §5.1.2); None if it is not canonical, or of a point of low order.

    For a key of low order anybody can make signatures, and anybody agrees with it on the same secret: it is nobody's.
    """
    # The last bit is the sign of x.
    y = int.from_bytes(key, "little") & ((1 << 255) - 1)
    return None if y >= _P or y in _LOW_ORDER else y


def _montgomery(key: bytes) -> bytes | None:
    """The u-coordinate of an Ed25519 key (RFC 7748 §4.1); None if it is none that may be used.

    A point of the curve that is in no subgroup may: clamped scalars are multiples of 8, which takes what is of low
    order in it away.
    """
    y = _coordinate(key)
    if y is None:
        return None
    u, w = 1 + y, (1 - y) % _P  # the coordinate is u/w
    if pow(u * w * (u * u + _A * u * w + w * w), (_P - 1) // 2, _P) != 1:
        # Euler's criterion: v² is no square, so this is no point.
        return None
    return (u * pow(w, -1, _P) % _P).to_bytes(_KEY_LENGTH, "little")
