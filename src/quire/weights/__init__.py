"""Weights: where a model's tensors come from and under which names. Knows nothing about layers."""
