from __future__ import annotations

from ext_proc.protocols import canonical
from tests.ext_proc.protocols.reading import READING

MEDIA = READING.media_bytes


def test_json_is_written_in_one_form() -> None:
    assert canonical.dumps({"b": [1, None, "é"], "a": {"d": 1.5, "c": True}}) == (
        '{"a":{"c":true,"d":1.5},"b":[1,null,"é"]}'
    )


def test_a_tool_reads_alike_in_every_protocol() -> None:
    schema = {"type": "object", "properties": {}}
    shapes = [
        {
            "type": "function",
            "function": {"parameters": schema, "name": "f", "description": "d", "strict": True},
        },
        {"type": "function", "name": "f", "description": "d", "parameters": schema, "strict": None},
        {"name": "f", "description": "d", "input_schema": schema, "cache_control": {"type": "ephemeral"}},
    ]
    assert len({canonical.tools([shape]) for shape in shapes}) == 1
    assert canonical.tools([shapes[0], shapes[0]]) != canonical.tools([shapes[0]])
    assert canonical.tools([{"type": "web_search"}]) != canonical.tools([{"type": "file_search"}])
    assert [canonical.tools(nothing) for nothing in (None, 5, "x")] == [""] * 3
    assert canonical.tools([]) == ""


def test_arguments_read_alike_as_text_and_as_values_and_bad_ones_as_they_are() -> None:
    assert canonical.call("1", "f", '{"b": 2, "a": 1}') == canonical.call("1", "f", {"a": 1, "b": 2})
    assert '{"a": 1' in canonical.call("1", "f", '{"a": 1')
    dense = "[" + "[1]," * 1000
    assert dense in canonical.call("1", "f", dense)


def test_parts_follow_each_other_and_unknown_ones_are_told_apart() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "refusal", "refusal": "no"},
        {"type": "text", "text": "b"},
    ]
    assert canonical.content(parts, MEDIA) == "anob"
    assert canonical.content([{"type": "new", "x": 1}], MEDIA) != canonical.content(
        [{"type": "new", "x": 2}], MEDIA
    )
    assert canonical.content([5, "six"], MEDIA) != canonical.content([5, "seven"], MEDIA)
    assert canonical.content({"odd": 1}, MEDIA) == '{"odd":1}'
    assert canonical.content(None, MEDIA) == ""


def test_images_are_digests_that_count_up_to_a_number_of_them() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:;base64,QUJD"}}
    one, many = canonical.content([image], MEDIA), canonical.content([image] * 1000, MEDIA)
    assert "QUJD" not in one
    assert len(one) > 0.9 * MEDIA
    assert len(many) < 100 * MEDIA


def test_who_speaks_is_told_apart_and_synonyms_are_not() -> None:
    assert canonical.message("developer", "x") == canonical.message("system", "x")
    assert canonical.message(None, "x") == canonical.message("user", "x")
    assert canonical.message("assistant", "x") != canonical.message("user", "x")


def test_lone_surrogates_can_be_written() -> None:
    assert canonical.encode("\ud800") == b"\xed\xa0\x80"
