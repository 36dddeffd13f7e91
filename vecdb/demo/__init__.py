"""``vecdb demo``: real text of this machine, indexed, searched, measured, and killed in the middle of a write.

Nothing here prints: what happens is told to a ``Screen`` (``screen.py``) and returned as a ``DemoReport``
(``report.py``).
"""
