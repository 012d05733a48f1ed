"""Training steps of modules that others wrote, one workload a module: `python -m benchmarks models` runs all."""
