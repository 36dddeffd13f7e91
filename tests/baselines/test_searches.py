"""A search that looks at more than it did, or finds less, is seen without a clock."""

import importlib.util
import json
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("baseline_searches", Path(__file__).with_name("searches.py"))
searches = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(searches)


def test_searches_cost_what_is_on_record():
    recorded = json.loads(searches.RECORD.read_text(encoding="utf-8"))
    measured = searches.measured()
    assert measured.keys() == recorded.keys()
    for name, now in measured.items():
        before = recorded[name]
        # Counts come from integers; only the generator of the data may differ in a last bit between platforms.
        assert now["distances"] == pytest.approx(before["distances"], rel=0.01), name
        assert now["hops"] == pytest.approx(before["hops"], rel=0.01), name
        assert now["recall"] == pytest.approx(before["recall"], abs=0.004), name
