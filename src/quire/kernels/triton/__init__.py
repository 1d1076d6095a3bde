"""Kernels for GPUs in Triton; each has a twin of the same meaning in `kernels.reference`."""
