"""Benchmarks: functrain beside its peers, interleaved in one run. `python -m benchmarks --help` lists them."""
