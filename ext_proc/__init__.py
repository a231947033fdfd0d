"""The picker: for each request that Envoy shows it, the endpoint of the chosen cluster that answers first.

Contract: imports `fleet`, never `xds_server`. Requests are decided from memory; no request waits for
Redis. `request`, `protocols`, `trust`, `admission`, `session`, `endpoint`, `predict`, `health`, `traffic`,
`picker` and `steer` are plain synchronous code. Envoy's messages stop at `stream`, `duplex`, `opening`,
`reply`, `gateway_reply` and `completions`; gRPC stops at `server` and `health_service`; metrics, spans and
log lines are made in `reporter`. Prompt text is hashed and dropped: it is never stored or logged.
"""
