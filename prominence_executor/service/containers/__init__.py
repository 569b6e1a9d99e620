"""How a task's words become a command: as they are, or in a container of its image. Starts no task."""
