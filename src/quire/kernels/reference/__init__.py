"""The definition of every kernel in plain torch: right first, what others are compared to."""
