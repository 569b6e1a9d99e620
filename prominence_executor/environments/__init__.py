"""Packages that travel with calls: what is wanted, the versions that were chosen, and the archive that a job unpacks.

    wanted.py     requirements as users give them: a list, requirements.txt, pyproject.toml
    platforms.py  for which machines
    tools.py      uv, or pip: choose versions, and lay packages down in a folder
    locks.py      what was chosen, with hashes; kept, so that the next run has the same
    archive.py    a folder as an archive that depends on its content alone
    store.py      the folder of this user's machine that keeps locks and archives

It knows neither runs nor jobs, and does not talk to the service.
"""
