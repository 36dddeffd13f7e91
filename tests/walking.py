"""Costs under which a plan walks the graph wherever there is one, however few rows are allowed."""

from vecdb.query.costs import SearchCosts

WALKS = SearchCosts(row_ns=0.0, hop_ns=0.0, detour_ns=0.0)
