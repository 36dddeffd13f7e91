"""The thin client: the database of a server, with the same verbs, results and errors as an embedded one.

It imports neither the engine nor what the engine is made of.
"""

from vecdb.client.aio import AsyncCollection, AsyncRemoteDatabase, connect_async
from vecdb.client.remote import RemoteCollection, RemoteDatabase, connect

__all__ = ["AsyncCollection", "AsyncRemoteDatabase", "RemoteCollection", "RemoteDatabase", "connect", "connect_async"]
