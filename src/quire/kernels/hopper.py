"""Facts about Hopper GPUs."""

CAPABILITY = (9, 0)
SHARED_BYTES = 232_448  # of shared memory, the most that one block may use
