"""Shared vocabulary and state: what an endpoint is, what it holds, how fast it is, what it still owes.

Contract: plain synchronous code, state and `now` in, decision out; only `store`, `process` and
`settings_file` do I/O. Nothing here imports gRPC, Envoy messages or Kubernetes, and only
`fleet.store.redis` imports redis. Times are seconds; decisions are given `now`, they never read a clock.
"""
