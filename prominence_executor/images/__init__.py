"""Container images: built on this machine, and uploaded from its files.

It knows nothing of runs.
"""
