"""The upper bounds of what a request may ask for, one place for all of them. No logic.

A bound is far above what anybody wants of one machine and far below what breaks it: what stays within all of them can
be stored, timed and run. The real service knows few of them, and breaks later.
"""

from __future__ import annotations

MOST_MINUTES = 5_256_000  # of walltime: ten years
MOST_MINUTES_IN_QUEUE = 44_640  # the real service's own: 31 days
MOST_PRIORITY = 2**31 - 1  # HTCondor's
MOST_OF_A_MACHINE = 1_000_000  # CPUs, or GB of memory or disk
MOST_NODES = 128  # that this service emulates
MOST_RANKS = 8_192  # of one task, on all nodes
MOST_TASKS = 1_000
MOST_SIDECARS = 32  # which all run at once
MOST_FILES = 10_000  # of one kind of a job
MOST_PATTERNS = 3  # components of one output's name that are patterns
MOST_LABELS = 1_000
MOST_VARIABLES = 10_000
MOST_NOTIFICATIONS = 100

LONGEST_TEXT = 512  # characters of names, labels and their like, which must stay below
LONGEST_NAME = 255  # bytes of a file's name
LONGEST_PATH = 4_096  # bytes of a path or URL
LONGEST_WORD = 128 * 1024  # bytes of one argument or variable: the kernel's limit (MAX_ARG_STRLEN)
LONGEST_COMMAND = 1_500_000  # bytes of a task's words and variables together: the kernel gives them 2 MB

LARGEST_WORKFLOW = 100_000  # jobs
LARGEST_PLAN = 1_000_000  # parameters of all its jobs together
LONGEST_VALUE = 4_096  # bytes of a parameter
LARGEST_STORED = 128 << 20  # bytes that the database holds of a workflow's jobs
MOST_LOOKUPS = 200_000  # of uploaded objects that a workflow's jobs name

LARGEST_ID = 2**63 - 1  # that the database can look for
MOST_IDS = 10_000  # in one request
LONGEST_KEY = 4_096  # bytes of a key in the key-value store
LARGEST_ANSWER = 1 << 30  # bytes of a list in detail, which repeats each job's description

DEEPEST = 32  # lists and objects of a document inside each other
LONGEST_NUMBER = 300  # digits
