"""Emulated engines: what a fleet of Triton / TensorRT-LLM pods does with requests, without a GPU.

Three layers. `kvcache`, `engine`, `timing`, `capacity` and `prompt` are a plain model: requests and `now`
in, exact event times out, no clock and no I/O, cheap enough for discrete-event simulation. `backend` and
`server` put that model behind real sockets, one listening address per emulated endpoint, speaking the
engines' own OpenAI and Prometheus dialects, and `grpc_server` KServe's gRPC (`python -m sim -c FILE`).
`simulation` plays `workloads` on `fleets` of that model in virtual time, as `policies` place them; ours
drives the real picker (`kvpilot sim`).

The model keeps what routing depends on: prompts wait in order, a prefix that is still cached costs nothing,
cache space is finite, decodes share the GPU with prefill. It does not keep what routing cannot see, and
its answers are filler.

Two of its constants, 8 ms of overhead per request and prefill slower by 1.2 % per running decode, equal
what the picker's predictor assumes (`fleet.ledger`). So figures measured here flatter the predictor: on a
real engine it errs in these two as well. They stay the engine's own, so that a change of the predictor does
not change what it is measured against.
"""
