"""Reports of runs: where the time went, by what this program has seen, or by what the service tells."""
