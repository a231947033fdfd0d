"""The protocols that engines speak over HTTP, a module each: bytes in, answers out, no I/O.

Contract: `routes.APIS` has for each path an `Api`, whose `read` makes a `Call` of a request or raises
ApiError, whose `answer` is what the engine says to it, and whose `error` words a refusal. Answers are
filler, always the same for a prompt; all protocols share one chat template, so what one of them filled the
cache with, another finds. A response that names a previous one is answered from its new input alone: nothing
is remembered.
"""
