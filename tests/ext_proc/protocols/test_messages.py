from __future__ import annotations

from tests.ext_proc.protocols.reading import parse, reason

QUESTION = {"role": "user", "content": "What is a mesh?"}


def test_the_system_prompt_comes_first_as_text_or_as_blocks() -> None:
    plain = parse("messages", {"messages": [QUESTION], "system": "Be kind."})
    block = {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}
    blocks = parse("messages", {"messages": [QUESTION], "system": [block]})
    assert blocks.text == plain.text
    assert plain.text.index(b"Be kind.") < plain.text.index(b"What is a mesh?")


def test_where_a_client_puts_its_cache_breakpoint_changes_nothing() -> None:
    def asked(**more: object) -> bytes:
        block = {"type": "text", "text": "What is a mesh?", **more}
        return parse("messages", {"messages": [{"role": "user", "content": [block]}]}).text

    assert (
        asked(cache_control={"type": "ephemeral"})
        == asked()
        == parse("messages", {"messages": [QUESTION]}).text
    )


def test_thoughts_of_earlier_turns_are_left_out() -> None:
    said = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "A net."}]
    with_thought = parse("messages", {"messages": [QUESTION, {"role": "assistant", "content": said}]})
    without = parse("messages", {"messages": [QUESTION, {"role": "assistant", "content": "A net."}]})
    assert with_thought.text == without.text


def test_reads_limit_streaming_and_the_user_as_session() -> None:
    body = {
        "messages": [QUESTION],
        "max_tokens": 9,
        "stream": True,
        "metadata": {"user_id": "u"},
        "model": "m",
    }
    found = parse("messages", body)
    assert (found.output_tokens, found.streamed, found.session, found.model) == (9, True, "u", "m")


def test_says_that_there_are_no_messages() -> None:
    assert reason("messages", {"system": "x"}) == "no-messages"
    assert reason("messages", {"messages": []}) == "no-messages"
