"""Models over HTTP: the endpoints that others' clients know, over the `Model` that Python has."""
