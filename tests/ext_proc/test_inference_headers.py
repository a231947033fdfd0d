from __future__ import annotations

import pytest

from ext_proc.inference_headers import ALIASES, add_present_names


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_older_names_say_the_same_and_the_present_ones_win(old: str, new: str) -> None:
    for sent, expected in (({old: "1"}, {old: "1", new: "1"}), ({old: "1", new: "2"}, {old: "1", new: "2"})):
        add_present_names(sent)
        assert sent == expected


def test_leaves_other_headers_as_they_are() -> None:
    headers = {"x-session-id": "s"}
    add_present_names(headers)
    assert headers == {"x-session-id": "s"}
