"""Parameter sweeps: describe the axes, run it again and again, look at the result.

    identity < points           which calls, each with a key
    records < memory, store     what is known of them
    carriers < course           how they reach an executor, and what comes back
    sweep                       puts them together; point is what its user sees

It uses the package as its users do, by public names; it may not know how an executor works.
"""
