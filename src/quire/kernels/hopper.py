"""Facts about Hopper GPUs."""

CAPABILITY = (9, 0)
SHARED_BYTES = 232_448  # that one block may have
