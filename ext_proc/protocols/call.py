"""One request as a protocol gets it, how far it may be read, and what every protocol is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ext_proc import session
from ext_proc.protocols import body, fields
from ext_proc.request import Prompt
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

UNFORESEEN = "unforeseen"
"""The reason of last resort: a parser met what nobody thought of. Tests of all kinds never see it."""

REASONS = frozenset(
    {
        "bad-compression",  # Content-Encoding says gzip or deflate, the bytes do not
        "bad-header-length",  # Inference-Header-Content-Length is no number
        "bad-token-ids",  # not all of them unsigned 32-bit integers
        "no-grpc-message",  # not even the beginning of one
        "no-input",  # what embeddings are wanted of, or a tensor with a prompt, is missing
        "no-messages",
        "no-prompt",
        "not-an-object",
        "not-json",
        "unknown-compression",  # Content-Encoding names what is not read here
        UNFORESEEN,
    }
)
"""Every reason that a request is unreadable for."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How requests are read: what settings say about it, made ready."""

    bytes_max: int  # of a body, after it was unpacked
    media_bytes: int  # of canonical prompt that an image or a piece of sound counts as
    session_keys: Sequence[Sequence[str]] = ()  # paths in a body, the first found wins


@dataclass(frozen=True, slots=True)
class Call:
    """One request. Header names are lower case; `body` is as it came, compressed or cut or not."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    reading: Reading

    def session(self, found: Mapping[str, object]) -> str:
        """The session that a body names, or ''."""
        return session.from_body(found, self.reading.session_keys)

    def prompt(
        self,
        found: Mapping[str, object],
        text: bytes,
        limits: Iterable[str],
        tokens: int | None = None,
    ) -> Prompt:
        """`text` with what a JSON body says beside its prompt, in the words that the protocols share.

        `limits`: what the protocol calls the answer's length. `tokens`: of a text that is ids.
        """
        return Prompt(
            model=fields.name(found.get("model")),
            text=text,
            streamed=found.get("stream") is True,
            output_tokens=fields.output_limit(found, limits),
            session=self.session(found),
            cache_salt=fields.name(found.get("cache_salt")),
            lora=fields.lora(found),
            tokens=tokens,
        )


@dataclass(frozen=True, slots=True)
class Protocol:
    """A name for counters, and a function from a call and its opened body to a prompt.

    The function raises UnreadableRequestError; whatever else it might raise is taken for UNFORESEEN.
    """

    name: str
    read: Callable[[Call, bytes], Prompt]

    def parse(self, call: Call) -> Prompt:
        """The prompt in `call`. Raises UnreadableRequestError and nothing else."""
        opened = body.opened(call.body, call.headers.get("content-encoding", ""), call.reading.bytes_max)
        try:
            prompt = self.read(call, opened.data)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise UnreadableRequestError(UNFORESEEN) from error
        return prompt if opened.whole else replace(prompt, read_bytes=opened.wire_bytes)
