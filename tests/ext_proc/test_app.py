from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ext_proc.app import read_key
from fleet.errors import ConfigError
from tests.support import one_pool_settings

if TYPE_CHECKING:
    from pathlib import Path

    from fleet.settings import Settings


def keyed(path: Path) -> Settings:
    return one_pool_settings(picker={"key_file": str(path)})


def test_without_a_file_every_process_has_a_fresh_key() -> None:
    first, second = (read_key(one_pool_settings(), "mine.yaml") for _ in range(2))
    assert len(first) == len(second) == 32
    assert first != second


def test_the_key_is_what_the_file_holds_however_its_last_line_ends(tmp_path: Path) -> None:
    for text in (b"a secret\xff", b"a secret\xff\n", b"a secret\xff\r\n"):
        (tmp_path / "key").write_bytes(text)
        assert read_key(keyed(tmp_path / "key"), "mine.yaml") == b"a secret\xff"


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"cannot be read: .*{reason}") as caught:
            read_key(keyed(path), "mine.yaml")
        assert str(caught.value).startswith(f"mine.yaml: picker.key_file is '{path}': ")
        assert isinstance(caught.value.__cause__, OSError)


def test_an_empty_file_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(" \n")
    with pytest.raises(ConfigError) as caught:
        read_key(keyed(path), "mine.yaml")
    assert str(caught.value).startswith(f"mine.yaml: picker.key_file is '{path}': is empty: expected ")
