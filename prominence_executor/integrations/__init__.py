"""Other libraries' ways to run things in parallel, on an executor: each is a module of its own, named as the library.

They use public names of this package alone, and import their library only themselves: nothing here imports them.
"""
