"""Models as data: a spec per architecture, one decoder that is composed from it."""
