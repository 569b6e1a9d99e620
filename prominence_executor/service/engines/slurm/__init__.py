"""Slurm as the batch system behind the service, through its commands alone."""
