"""What clients speak: from a request's path, headers and body, whole or cut, to a `Prompt`.

Contract: `find(method, path)` names the protocol of a request, or None for what passes through untouched;
`protocol.parse(call)` reads it, and raises UnreadableRequestError and nothing else. The reasons of those are
in `REASONS`, the protocols' names in `NAMES`: both label counters, so both are bounded. Reading costs tens of
milliseconds at most whatever the bytes, since dense structure is read only so far. A body cut anywhere still
yields its beginning, as far as prefix affinity needs it.

The canonical prompt (`canonical`) is what the engine will see: tools, then the system's words, then messages
in order, each closed, so that a conversation's next turn begins with the bytes of this one, whoever wrote the
JSON, in which order of keys and by which of the protocols. A prompt of token ids is those ids. Images and
sounds are digests. Nothing here does I/O, reads a clock, stores or logs anything.

A module per protocol; to add one (another transport's, say), write a function from `Call` and the opened body
to a `Prompt` and enter it in `registry`. `tensors` reads what KServe requests carry, whatever carries them.
"""

from __future__ import annotations

from ext_proc.protocols.call import REASONS, Call, Protocol, Reading
from ext_proc.protocols.registry import NAMES, find

__all__ = ["NAMES", "REASONS", "Call", "Protocol", "Reading", "find"]
