"""The limit of one batch: what is too large is refused whole, what just fits goes through every layer."""

import numpy as np
import pytest

from vecdb.errors import InvalidArgument

DIM = 65_536


def test_a_batch_of_more_than_64_mb_is_refused_and_one_of_less_is_not(database):
    wide = database.create_collection("wide", dim=DIM)
    vectors = np.ones((260, DIM), np.float32)
    with pytest.raises(InvalidArgument) as caught:
        wide.upsert(range(260), vectors)
    assert (caught.value.limit, caught.value.value) == ("67108864 bytes", str(260 * DIM * 4 + 260 * 8 + 260 * 2))
    assert wide.count() == 0
    assert wide.upsert(range(250), vectors[:250]).upserted == 250
