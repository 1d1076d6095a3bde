"""Kernels that use what the CPU builds of torch offer beyond plain operations."""
