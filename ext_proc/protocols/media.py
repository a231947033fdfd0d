"""Images, sounds and files in a prompt: a digest stands for each, and counts as many tokens as it would.

The same bytes have the same digest whoever sends them: as a data URL or as plain base64, padded or not,
URL-safe or not. A remote URL stands for itself, since nobody here fetches it: the same image inline and by
URL differ, and so do two URLs of one image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xxhash import xxh3_128_hexdigest

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "audio": "audio",
    "video_url": "video",
    "input_video": "video",
    "video": "video",
    "file": "file",
    "input_file": "file",
    "document": "file",
}

_SOURCES = ("url", "data", "file_data", "file_id", "file_url", "text")
"""Where a part's inner object says what it shows, whatever the protocol."""

_BLANKS = ("\n", "\r", " ")
_URL_SAFE = str.maketrans("-_", "+/")


def digest(part: Mapping[str, object], length: int) -> str | None:
    """Text of about `length` characters that stands for what `part` shows; None where that is no medium."""
    type_ = part.get("type")
    kind = _KINDS.get(type_) if isinstance(type_, str) else None
    if kind is None or not isinstance(type_, str):
        return None
    shown = part.get(type_, part.get("source", part.get("image_url")))
    found = _source(part if shown is None else shown)
    if found is None:
        return None
    detail = shown.get("detail") if isinstance(shown, dict) else part.get("detail")
    seen = detail if detail in ("low", "high") else ""
    hashed = xxh3_128_hexdigest(f"{kind}{seen}{_normal(found)}".encode("utf-8", "surrogatepass"))
    return kind + hashed * max(1, round(length / len(hashed)))


def _source(shown: object) -> str | None:
    if isinstance(shown, str):
        return shown
    if isinstance(shown, dict):
        for key in _SOURCES:
            value = shown.get(key)
            if isinstance(value, str):
                return value
    return None


def _normal(source: str) -> str:
    """What a source says, without how: base64 in one form, other URLs as they are."""
    if source.startswith("data:"):
        source = source.partition(",")[2]
    elif "://" in source[:16]:
        return source
    for blank in _BLANKS:
        if blank in source:
            source = source.replace(blank, "")
    if "-" in source or "_" in source:
        source = source.translate(_URL_SAFE)
    return source.rstrip("=")
