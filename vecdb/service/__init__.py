"""The gRPC server: it translates, limits and measures; the database behind it does the work.

What it knows of that database is ``vecdb.api``. Every request passes one gate before a byte of it is parsed.
"""

from vecdb.service.options import ServeOptions, ServerOptions
from vecdb.service.run import run_server
from vecdb.service.server import Server

__all__ = ["ServeOptions", "Server", "ServerOptions", "run_server"]
