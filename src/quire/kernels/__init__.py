"""Numeric kernels: plain functions of tensors. Know nothing of models, batches or backends."""
