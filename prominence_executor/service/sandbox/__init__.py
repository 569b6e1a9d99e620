"""One job's files and processes on this machine. Knows no queue and no requests."""
