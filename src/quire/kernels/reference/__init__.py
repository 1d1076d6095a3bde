"""The definition of every kernel in plain torch: correct before fast, and what tests compare to."""
