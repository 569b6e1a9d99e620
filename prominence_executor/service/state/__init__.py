"""What a service keeps: its directory, database, objects and keys. Decides nothing about jobs."""
