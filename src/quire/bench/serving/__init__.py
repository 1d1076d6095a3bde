"""The parts of `quire bench serve`: what is sent, when, how it is measured, and what comes out."""
