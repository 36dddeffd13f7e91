"""Queries: which rows a filter allows, how each part of a collection is searched, and how the answers are merged."""
