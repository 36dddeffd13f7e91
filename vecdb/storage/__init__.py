"""Bytes on disk: write-once array files, the write-ahead log, the LMDB environment, the mirror and the lock.

Storage knows no engine types: it stores opaque bytes and named arrays. The formats are written down in
``docs/formats``.
"""
