"""Models over HTTP: the endpoints that others' clients know, over the same `Model` that Python's users have."""
