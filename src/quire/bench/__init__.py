"""Measurements that users run: `quire bench throughput`, `latency`, `startup` and `serve`."""
