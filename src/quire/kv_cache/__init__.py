"""The KV cache as bookkeeping: blocks, block tables, shared prefixes. Imports no torch."""
