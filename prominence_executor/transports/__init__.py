"""How calls reach the service and come back: as jobs, or through warm workers, which may not know each other."""
