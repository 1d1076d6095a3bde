"""One rank: the rows on the device, and the pass that computes a step for them."""
