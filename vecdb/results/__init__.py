"""What a caller gets back: the same values embedded and served. Nothing here knows an engine or the wire."""
