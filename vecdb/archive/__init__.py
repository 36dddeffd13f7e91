"""Backup files: what is in one, how it is written and how it is read. Nothing here knows an engine."""
