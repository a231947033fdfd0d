"""A gRPC server of our own over HTTP/2 without TLS, for one kind of client: Envoy.

Contract: `Http2Server` takes the place of `grpc.aio.server()` at a fraction of its CPU, because an exchange
is a few small frames on one connection and nothing else. What it has of gRPC: handlers that are coroutines
which read and write through their context, unary and streaming in every combination, status trailers,
cancellation, flow control both ways, pings, graceful shutdown. What it has not: TLS, compression, deadlines,
interceptors.

`hpack`, `stream` and `connection` are HTTP/2 without I/O (RFC 7541, RFC 9113): bytes in, calls and bytes out.
Bytes from the other side may end its connection and never raise out of it.
"""
