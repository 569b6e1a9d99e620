"""The ``__main__`` of the archive ``pxrun.pyz``: starts the runner, and defines no name.

What a pickle or a call looks up in ``__main__`` is a name of the user's script, and must not be found to be ours.
"""

__import__("pxremote.runner").runner.main()
