"""Damage as files meet it: cut, flipped, overwritten, spliced, or with a number of theirs changed to a wild one."""

from __future__ import annotations

import re

import numpy as np

WILD_NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"255",
    b"65536",
    b"2147483647",
    b"4294967295",
    b"100000000000",
    b"1e300",
    b"nan",
    b"",
)
WILD_BYTES = (0, 1, -1, 127, 2**31 - 1, 2**32 - 1, 2**40)
HEAD = 2048  # where headers are


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """The content of a file after one to three accidents; never what it was."""
    data = whole
    while data == whole:
        for _ in range(rng.integers(1, 4)):
            data = ACCIDENTS[rng.integers(len(ACCIDENTS))](data, rng)
    return data


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data) + 1)]


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for at in rng.integers(len(data), size=rng.integers(1, 9)):
        changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    """A block of zeros, ones, or noise, as a bad sector leaves it."""
    start, size = rng.integers(len(data) + 1), rng.integers(1, 600)
    block = [bytes(size), b"\xff" * size, rng.bytes(size)][rng.integers(3)]
    return data[:start] + block[: len(data) - start] + data[start + size :]


def splice(data: bytes, rng: np.random.Generator) -> bytes:
    """A piece left out, or there twice."""
    start, end = sorted(rng.integers(len(data) + 1, size=2))
    return data[:start] + data[end:] if rng.integers(2) else data[:end] + data[start:]


def change_a_number(data: bytes, rng: np.random.Generator) -> bytes:
    """One that is written as text, often in the header."""
    numbers = list(re.finditer(rb"-?\d+", data[: HEAD if rng.integers(2) else None]))
    if not numbers:
        return data
    number = numbers[rng.integers(len(numbers))]
    return data[: number.start()] + WILD_NUMBERS[rng.integers(len(WILD_NUMBERS))] + data[number.end() :]


def change_a_field(data: bytes, rng: np.random.Generator) -> bytes:
    """An integer of a binary header."""
    size = 2 ** int(rng.integers(4))
    value = WILD_BYTES[rng.integers(len(WILD_BYTES))] % 256**size
    start = rng.integers(min(len(data), HEAD) + 1)
    changed = value.to_bytes(size, "little" if rng.integers(2) else "big")
    return data[:start] + changed[: len(data) - start] + data[start + size :]


def change_a_word(data: bytes, rng: np.random.Generator) -> bytes:
    """A name left out, doubled, or swapped with another."""
    words = list(re.finditer(rb"[A-Za-z_]{2,}", data[:HEAD]))
    if not words:
        return data
    word, other = (words[i] for i in rng.integers(len(words), size=2))
    new = [b"", 2 * word[0], other[0]][rng.integers(3)]
    return data[: word.start()] + new + data[word.end() :]


ACCIDENTS = (cut, flip_bits, overwrite, splice, change_a_number, change_a_field, change_a_word)
