"""Names of decisions, which tie the access log's news to them."""

from __future__ import annotations

import hashlib


class PickIds:
    """One after the other: unguessable without the seed, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        """Any seed of at most 31 bytes."""
        self._key = seed.to_bytes(32, "little", signed=True)
        self._given = 0

    def next(self) -> str:
        """32 hexadecimal digits that were not given before."""
        self._given += 1
        number = self._given.to_bytes(8, "little")
        return hashlib.blake2b(number, key=self._key, digest_size=16).hexdigest()
