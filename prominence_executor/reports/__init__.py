"""Reports of runs: where the time went, by facts that others have gathered. It asks nobody."""
