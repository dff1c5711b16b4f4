"""Ahead-of-time half of the ggml backend."""
