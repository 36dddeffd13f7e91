"""``vecdb bench``: vecdb measured beside other engines, with the same loop, on the same data, at the same time."""
