"""Measuring models: perplexity, and distance to a reference."""
