"""Valid bytes made slightly or wholly wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Mutation = Callable[[random.Random, bytearray, bytes], None]
"""Changes the bytes in place; the last argument is another sample, to take from."""

# Numbers at which lengths and counts go over an edge.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFC, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MAX_LENGTH = 65507


def mutate(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """One of the samples, after a few mutations; now and then untouched, or nothing but noise."""
    if rng.random() < 0.02:
        return rng.randbytes(rng.choice((0, 1, 19, 20, 21, 100, 1200, _MAX_LENGTH)))
    data = bytearray(rng.choice(samples))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
        rng.choice(_MUTATIONS)(rng, data, rng.choice(samples))
    return bytes(data[:_MAX_LENGTH])


def _flip_a_bit(rng: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_a_byte(rng: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _set_a_number(rng: random.Random, data: bytearray, other: bytes) -> None:
    width = rng.choice((1, 2, 4))
    if len(data) >= width:
        start = rng.randrange(len(data) - width + 1)
        number = rng.choice((*_EDGES, len(data))) & (1 << 8 * width) - 1
        data[start : start + width] = number.to_bytes(width, "big")


def _count_up_or_down(rng: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        at = rng.randrange(len(data))
        data[at] = data[at] + rng.choice((-4, -1, 1, 4)) & 0xFF


def _truncate(rng: random.Random, data: bytearray, other: bytes) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _remove(rng: random.Random, data: bytearray, other: bytes) -> None:
    start, end = _span(rng, len(data))
    del data[start:end]


def _repeat(rng: random.Random, data: bytearray, other: bytes) -> None:
    start, end = _span(rng, len(data))
    data[end:end] = data[start:end] * rng.choice((1, 1, 2, 50))


def _insert_noise(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16, 255)))


def _splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    """The start of one sample and the end of another, or a piece of the other in the middle."""
    start, end = _span(rng, len(other))
    at = rng.randrange(len(data) + 1)
    if rng.random() < 0.5:
        data[at:] = other[start:]
    else:
        data[at:at] = other[start:end]


def _span(rng: random.Random, length: int) -> tuple[int, int]:
    start = rng.randrange(length + 1)
    return start, min(length, start + rng.choice((1, 2, 4, 8, 32, length)))


_MUTATIONS: tuple[Mutation, ...] = (
    _flip_a_bit,
    _set_a_byte,
    _set_a_number,
    _count_up_or_down,
    _truncate,
    _remove,
    _repeat,
    _insert_noise,
    _splice,
)
