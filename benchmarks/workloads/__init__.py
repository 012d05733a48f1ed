"""One module a workload: `ENTRANTS` by name, `TARGETS` to reach, and what the figures mean."""
