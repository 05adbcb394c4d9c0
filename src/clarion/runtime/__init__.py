"""Sequences, batches, the KV cache's pages, sampling and streaming. Knows no model family and no file."""
