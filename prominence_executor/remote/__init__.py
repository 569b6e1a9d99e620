"""What runs inside a job: it travels there as data, and uses nothing but the standard library of Python 3.8 or later.

It may import nothing outside of this folder.
"""
