"""Threefry-2x32-20 in Python integers, after Salmon et al. (2011), and the uniform numbers made of it."""

from __future__ import annotations

WORD = 2**32
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)


def threefry(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Two words of hash."""
    schedule = (key[0], key[1], 0x1BD11BDA ^ key[0] ^ key[1])
    a, b = (counter[0] + schedule[0]) % WORD, (counter[1] + schedule[1]) % WORD
    for number in range(20):
        a = (a + b) % WORD
        bits = ROTATIONS[number % 8]
        b = ((b << bits) | (b >> (32 - bits))) % WORD ^ a
        if number % 4 == 3:
            turn = number // 4 + 1
            a = (a + schedule[turn % 3]) % WORD
            b = (b + schedule[(turn + 1) % 3] + turn) % WORD
    return a, b


def uniform(seed: int, step: int, replica: int, rows: int, slots: int) -> list[list[float]]:
    """What a layer with this seed draws at this step, on this replica."""
    key = threefry((seed, step), (replica, 0))
    return [[(threefry(key, (row, slot))[0] >> 8) / 2**24 for slot in range(slots)] for row in range(rows)]
