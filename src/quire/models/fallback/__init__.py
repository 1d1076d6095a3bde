"""Models that run through the modelling code of transformers, with our paged attention in it."""
