"""The Database and Collection that a user holds, embedded or served."""

from vecdb.api.collection import SCROLL_PAGE_ROWS, Collection
from vecdb.api.database import Database

__all__ = ["SCROLL_PAGE_ROWS", "Collection", "Database"]
