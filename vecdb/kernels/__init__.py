"""The numbers of vecdb: NumPy arrays in, NumPy arrays out; no files, no engine types, nothing compiled at import."""
