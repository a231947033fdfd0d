from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.prefix import PrefixHasher

HASHER = PrefixHasher(b"secret", block_bytes=64)
ROOT = HASHER.root("model")


@given(shared=st.binary(max_size=600), left=st.binary(max_size=300), right=st.binary(max_size=300))
def test_two_prompts_share_exactly_the_hashes_of_the_blocks_they_share(
    shared: bytes, left: bytes, right: bytes
) -> None:
    one, two = shared + left, shared + right
    expected = 0
    while (end := 64 * (expected + 1)) <= min(len(one), len(two)) and one[:end] == two[:end]:
        expected += 1
    hashes_one, hashes_two = HASHER.blocks(one, ROOT), HASHER.blocks(two, ROOT)
    common = 0
    for a, b in zip(hashes_one, hashes_two, strict=False):
        if a != b:
            break
        common += 1
    assert common == expected
    assert not set(hashes_one[common:]) & set(hashes_two[common:])


def test_gives_no_hash_to_a_partial_last_block() -> None:
    assert HASHER.blocks(b"x" * 63, ROOT) == []
    assert len(HASHER.blocks(b"x" * 191, ROOT)) == 2


def test_the_same_block_hashes_differently_behind_another_prefix() -> None:
    block = b"y" * 64
    behind_a = HASHER.blocks(b"a" * 64 + block, ROOT)
    behind_b = HASHER.blocks(b"b" * 64 + block, ROOT)
    assert behind_a[1] != behind_b[1]


def test_scopes_and_keys_never_share_a_root() -> None:
    roots = {
        HASHER.root("ab", "c"),
        HASHER.root("a", "bc"),
        HASHER.root("a", "b", "c"),
        HASHER.root("abc"),
        PrefixHasher(b"another", 64).root("abc"),
        PrefixHasher(b"k" * 65, 64).root("abc"),
        PrefixHasher(b"k" * 66, 64).root("abc"),
    }
    assert len(roots) == 7


def test_takes_text_that_is_not_valid_unicode() -> None:
    assert HASHER.root("\ud800") != HASHER.root("")


def test_hashes_are_pinned_so_that_replicas_of_different_versions_agree() -> None:
    hasher = PrefixHasher(bytes(range(32)), 64)
    root = hasher.root("llama", "", "")
    blocks = hasher.blocks(bytes(range(128)), root)
    assert (root, blocks) == (GOLDEN_ROOT, GOLDEN_BLOCKS)


GOLDEN_ROOT = 6038959132721376038
GOLDEN_BLOCKS = [15394962327207093444, 1095510784842386089]
