"""Segments: the rows of a collection, mutable in a memtable or immutable in files."""
