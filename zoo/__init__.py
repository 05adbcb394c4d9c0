"""The zoo: how the models of this repository are trained, from books in the public domain to GGUF files."""
