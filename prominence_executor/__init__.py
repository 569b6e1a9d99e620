"""Run Python functions as batch jobs of PROMINENCE, from plain Python."""
