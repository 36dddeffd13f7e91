"""Between the messages of ``vecdb.v1`` and the values of the domain, and between errors and gRPC status codes.

``encode_*`` makes a message of a value, ``decode_*`` a value of a message. Decoding checks what the bytes cannot
promise by themselves, so that every layer below may rely on a decoded value as on one made by ``vecdb.requests``.
Nothing here imports grpc. ``docs/formats/wire.md`` describes the format.
"""
