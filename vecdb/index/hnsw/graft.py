"""A finished graph whose bottom layer another build goes on from: most of its rows are rows of the new graph too.

Rows that are gone are cut out: who linked to one gets the links of that one as candidates, and chooses again (the
consolidation of deletes of FreshDiskANN, Singh et al. 2021, section 4). What comes of it is a function of the lent
links, of where the rows went, and of the codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vecdb.errors import Corruption
from vecdb.index.codes import stored_array
from vecdb.types import AnyArray, I32Array, I64Array


@dataclass(frozen=True, slots=True)
class LentGraph:
    """The bottom layer of a graph over other rows.

    Attributes
    ----------
    links
        (n, degree) int32: rows of that graph, -1 after the last.
    rows
        (n,) int32: the row of the new graph that each one became, rising; -1 for those that are gone.
    """

    links: I32Array
    rows: I32Array

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray], rows: I32Array) -> LentGraph:
        """The graph whose ``HnswBuilder.arrays()`` were stored.

        Raises
        ------
        Corruption
            The links are missing, of the wrong shape or type, or lead nowhere.
        """
        links = stored_array(arrays, "links", np.int32, 2)
        if links.shape[0] != rows.shape[0] or (
            links.size and (int(links.min()) < -1 or int(links.max()) >= rows.shape[0])
        ):
            raise Corruption(
                f"array 'links' of a graph does not fit {rows.shape[0]} rows", field="links", value=links.shape
            )
        return cls(links, rows)

    def kept(self) -> I64Array:
        """The rows that are not gone, (k,) int64, ascending."""
        return np.flatnonzero(self.rows >= 0)

    def links_of(self, kept: I64Array) -> tuple[I32Array, I64Array]:
        """The new links of some rows that are not gone.

        Returns
        -------
        links
            (k, degree) int32 in rows of the new graph, -1 after the last: those that are left.
        candidates
            Ascending ``row << 32 | candidate``, rows of the new graph, each pair once: for each row that lost a link,
            the links of those that it lost.
        """
        old = self.links[kept]
        links = self._moved(old)
        at, place = np.nonzero((old >= 0) & (links < 0))
        order = np.argsort(links < 0, axis=1, kind="stable")
        further = self._moved(self.links[old[at, place]])
        owners = np.broadcast_to(self.rows[kept[at]][:, None], further.shape)
        real = (further >= 0) & (further != owners)
        pairs: I64Array = np.unique((owners[real].astype(np.int64) << 32) | further[real])
        return np.take_along_axis(links, order, axis=1), pairs

    def _moved(self, links: I32Array) -> I32Array:
        """The same links in rows of the new graph, -1 for those that lead to rows that are gone."""
        return np.where(links >= 0, self.rows[np.maximum(links, 0)], np.int32(-1))
