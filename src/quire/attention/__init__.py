"""Attention backends: one protocol, one file per backend, chosen once when the model is built."""
