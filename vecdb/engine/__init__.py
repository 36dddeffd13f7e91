"""The embedded engine: a directory of collections, durable writes, background flushes and index builds."""
