"""The one place where ids are made."""

import os
import time
from uuid import UUID

_last = 0


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits, in this process always above the one before.

    The standard library has it from Python 3.14 on only.
    """
    global _last  # noqa: PLW0603  # what was made last is what the next must exceed
    made = ((time.time_ns() // 1_000_000) << 74) | int.from_bytes(os.urandom(9))
    _last = made if made > _last else _last + 1
    return UUID(int=(_last >> 74 << 80) | (0x7 << 76) | ((_last >> 62 & 0xFFF) << 64) | (0x2 << 62) | (_last & (1 << 62) - 1))
