"""From a stored job to its end: the queue, the run of one job, workflows, notifications. Knows no HTTP."""
