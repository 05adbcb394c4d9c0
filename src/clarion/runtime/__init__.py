"""Requests, steps, the states of sequences, sampling and streaming. Knows no model family and no file."""
