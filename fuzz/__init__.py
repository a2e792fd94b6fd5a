"""Fuzzing of everything that reads what a stranger can send: `python -m fuzz --seconds 60`.

A target is a function of a random generator, and a case is a target with a number: the seed, the target's name
and the number make the generator, and nothing else enters. So each failure is replayed by the one line that it
prints, whatever ran before it.
"""
