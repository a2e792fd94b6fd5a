"""Codes as commands use them: what they tell each other by one, and new ones for those that are burnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec

from quice.cli.output import Output
from quice.cli.runner import UsageError
from quice.errors import CodeGoneError, GuessedCodesError, WrongCodeError
from quice.ticket import SECRET_LENGTH

if TYPE_CHECKING:
    from quice.endpoint import Endpoint
    from quice.identity import PeerId
    from quice.signal.codes import Code

MAX_WRONG = 5
"""Wrong codes that one command puts up with: somebody who guesses gets so many of 65,536."""


class _Payload(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    pass


class Files(_Payload, frozen=True, tag="files", kw_only=True):
    """Of `quice send`: I have files. Who wants them needs the secret."""

    secret: Annotated[bytes, msgspec.Meta(min_length=SECRET_LENGTH, max_length=SECRET_LENGTH)]


class Fetch(_Payload, frozen=True, tag="fetch", kw_only=True):
    """Of `quice receive`: I want them."""


class Name(_Payload, frozen=True, tag="name", kw_only=True):
    """Of `quice pair`, on both sides: what I am called, where nobody has a better name for me."""

    name: str


_decoder = msgspec.msgpack.Decoder(Files | Fetch | Name)
_COMMANDS: dict[type[_Payload], str] = {Files: "quice send", Fetch: "quice receive", Name: "quice pair"}
"""Which says what."""

PayloadT = TypeVar("PayloadT", bound=_Payload)


async def offer(
    output: Output, endpoint: Endpoint, payload: _Payload, expected: type[PayloadT], words: Callable[[Code], str]
) -> tuple[PeerId, PayloadT]:
    """Offer one code after the other, until somebody has entered one and says what is expected; returns who, and what.

    words: tells people of a code. Raises `GuessedCodesError` after `MAX_WRONG` wrong ones, `CodeLimitError`, and
    `ServerUnreachableError`.
    """
    wrong = 0
    while True:
        offered = await endpoint.offer_code(msgspec.msgpack.encode(payload))
        output.event("code", words(offered.code), code=str(offered))
        try:
            peer, said = await offered.wait()
            return peer, _expect(said, expected)
        except WrongCodeError as error:
            wrong += 1
            if wrong == MAX_WRONG:
                raise GuessedCodesError(MAX_WRONG) from error
            output.event("code_burnt", "somebody tried a wrong code; here is a new one", reason="wrong")
        except CodeGoneError as error:
            output.event("code_burnt", f"{error.reason}; here is a new one", reason="gone")
        except UsageError as error:
            output.event("code_burnt", f"{error}; here is a new one", reason="usage")


async def enter(endpoint: Endpoint, code: Code, payload: _Payload, expected: type[PayloadT]) -> tuple[PeerId, PayloadT]:
    """Meet who has offered this code; returns who it is, and what it says.

    Raises `UsageError` when the code is one of another command, and as `Endpoint.enter_code`.
    """
    peer, said = await endpoint.enter_code(code, msgspec.msgpack.encode(payload))
    return peer, _expect(said, expected)


def _expect(said: bytes, expected: type[PayloadT]) -> PayloadT:
    try:
        payload = _decoder.decode(said)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UsageError("the other side used the code for something that this version does not know") from None
    if not isinstance(payload, expected):
        command = _COMMANDS[type(payload)]
        raise UsageError(f"the code was used in another command than it is for: the other side runs `{command}`")
    return payload
