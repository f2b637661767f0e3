"""The lessons: a ladder a student climbs alone in an afternoon, each step running for real.

A lesson is a module that reads as a short essay and plays on a ``Scene`` (servers, balancers,
callers, wires), filling a ``Page`` with what really happened: prose, sequence diagrams, annotated
bytes, bars, claims and how each was checked. Writers show a page on a terminal, as HTML, as
Markdown for ``docs/lessons/`` and as JSON. ``ladder.py`` holds them all and runs them.
"""
