"""Prompts to chained block hashes: two prompts share their first n hashes exactly if they share n blocks.

A block is a fixed run of bytes of the canonical prompt (about 64 tokens); its hash covers everything
before it. Chains start from a root that mixes in a secret, the model, the LoRA, the tenant and its cache
salt, so that no two of those ever match. xxh3 is a seeded fingerprint and makes no cryptographic promise.
"""

from __future__ import annotations

import hashlib

from xxhash import xxh3_64_intdigest

ROOTS_MAX = 4096
"""Scopes remembered; clients name salts, so there is no end of them, and at this number all are forgotten."""

KEY_BYTES_MAX = 64
"""BLAKE2b takes keys up to this long; a longer secret is hashed first."""


class PrefixHasher:
    """Hashes prompts for one secret key and one block size in bytes."""

    def __init__(self, key: bytes, block_bytes: int) -> None:
        self._key = key if len(key) <= KEY_BYTES_MAX else hashlib.blake2b(key).digest()
        self._block_bytes = block_bytes
        self._roots: dict[tuple[str, ...], int] = {}

    def root(self, *scope: str) -> int:
        """The 64-bit start of every chain in one scope: model, LoRA, tenant, cache salt."""
        root = self._roots.get(scope)
        if root is None:
            if len(self._roots) >= ROOTS_MAX:
                self._roots.clear()
            root = self._roots[scope] = self._root(scope)
        return root

    def _root(self, scope: tuple[str, ...]) -> int:
        digest = hashlib.blake2b(key=self._key, digest_size=8)
        for part in scope:
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))  # so that ("ab", "c") is not ("a", "bc")
            digest.update(data)
        return int.from_bytes(digest.digest(), "little")

    def blocks(self, prompt: bytes, root: int) -> list[int]:
        """One 64-bit hash per whole block of `prompt`, in order; a partial last block has none."""
        size = self._block_bytes
        view = memoryview(prompt)
        hashes = []
        parent = root
        for start in range(0, len(prompt) - size + 1, size):
            parent = xxh3_64_intdigest(view[start : start + size], parent)
            hashes.append(parent)
        return hashes
