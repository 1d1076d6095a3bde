"""Adapters. Only their requests so far, which users of other engines import from here."""
