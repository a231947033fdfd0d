from __future__ import annotations

from ext_proc.replication.presence import FORGOTTEN_SECONDS, Word, decode, fingerprint, present
from fleet.store.streams import MEMBER_SECONDS

NOW = 1000.0


def test_the_fingerprint_shows_key_and_block_size_but_not_the_key() -> None:
    one = fingerprint(b"a secret", 256)
    assert one == fingerprint(b"a secret", 256)
    assert len({one, fingerprint(b"another", 256), fingerprint(b"a secret", 512)}) == 3
    assert b"secret" not in one
    assert fingerprint(b"k" * 200, 256) != fingerprint(b"k" * 201, 256)


def test_words_survive_the_way_and_strange_bytes_say_nothing() -> None:
    word = Word(1.5, 0.5, b"f")
    assert decode(word.encode()) == word
    assert decode(b"\xff\xff") is None
    assert decode(b"\x08\x63") is None  # a layout of the future


def said(**words: Word) -> dict[str, bytes]:
    return {name: word.encode() for name, word in words.items()}


def test_tells_the_others_from_the_dead_and_sweeps_the_long_dead_out() -> None:
    mine = Word(NOW, 0.0, b"f")
    found = present(
        "me",
        said(
            me=mine,
            other=Word(NOW - 1, 0.0, b"f"),
            dead=Word(NOW - MEMBER_SECONDS, 0.0, b"f"),
            buried=Word(NOW - FORGOTTEN_SECONDS - 1, 0.0, b"f"),
        ),
        NOW,
    )
    assert (found.others, found.strangers, found.gone) == (("other",), (), ("buried",))


def test_of_two_with_different_keys_the_later_one_gives_up() -> None:
    words = said(early=Word(NOW, 1.0, b"f"), late=Word(NOW, 2.0, b"g"))
    assert present("late", words, NOW).strangers == ("early",)
    assert present("early", words, NOW).strangers == ()
    assert present("early", words, NOW).others == ()
    assert present("early", words, NOW).unlike == ("late",)
    assert present("late", words, NOW).unlike == ("early",)


def test_one_of_the_two_gives_up_even_if_they_came_together() -> None:
    words = said(a=Word(NOW, 1.0, b"f"), b=Word(NOW, 1.0, b"g"))
    assert [present(name, words, NOW).strangers for name in ("a", "b")] == [(), ("a",)]
