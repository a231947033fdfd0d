from __future__ import annotations

import base64
from typing import Any

from ext_proc.protocols import media

PNG = bytes(range(256)) * 3 + b"x"
PLAIN = base64.b64encode(PNG).decode()
URL_SAFE = base64.urlsafe_b64encode(PNG).decode().rstrip("=")
WRAPPED = "\n".join(PLAIN[n : n + 76] for n in range(0, len(PLAIN), 76))
LENGTH = 2048


def digest(**part: Any) -> str | None:
    return media.digest(part, LENGTH)


def test_the_same_image_has_one_digest_whoever_sends_it() -> None:
    sent = [
        digest(type="image_url", image_url={"url": f"data:image/png;base64,{PLAIN}"}),
        digest(type="image_url", image_url={"url": f"data:image/png;base64,{URL_SAFE}", "detail": "auto"}),
        digest(type="image_url", image_url=f"data:image/png;base64,{WRAPPED}"),
        digest(type="input_image", image_url=f"data:image/png;base64,{PLAIN}"),
        digest(type="image", source={"type": "base64", "media_type": "image/png", "data": PLAIN}),
    ]
    assert len(set(sent)) == 1
    assert sent[0] is not None
    assert PLAIN[:20] not in sent[0]


def test_a_remote_image_is_its_url_in_every_protocol() -> None:
    url = "https://example.com/a_b-c.png?x=="
    sent = {
        digest(type="image_url", image_url={"url": url}),
        digest(type="input_image", image_url=url),
        digest(type="image", source={"type": "url", "url": url}),
    }
    assert len(sent) == 1
    assert sent != {digest(type="image_url", image_url={"url": url.replace("_", "/")})}


def test_other_images_kinds_and_resolutions_differ() -> None:
    sent = [
        digest(type="image_url", image_url={"url": f"data:;base64,{PLAIN}"}),
        digest(type="image_url", image_url={"url": f"data:;base64,{PLAIN}", "detail": "low"}),
        digest(type="image_url", image_url={"url": f"data:;base64,A{PLAIN}"}),
        digest(type="input_audio", input_audio={"data": PLAIN, "format": "wav"}),
        digest(type="document", source={"type": "base64", "data": PLAIN}),
    ]
    assert len(set(sent)) == len(sent)


def test_an_image_is_as_long_as_it_counts() -> None:
    for length in (0, 64, 2048, 4000):
        found = media.digest({"type": "image_url", "image_url": {"url": "a"}}, length)
        assert found is not None
        assert abs(len(found) - max(32, length)) < 32


def test_what_shows_nothing_is_no_medium() -> None:
    assert [
        digest(type="text", text="a"),
        digest(type=["image"]),
        digest(type="image_url", image_url={"url": 5}),
        digest(type="image"),
        digest(),
    ] == [None] * 5
