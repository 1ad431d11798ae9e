"""Fuzz the commands with hostile model folders: nothing outside changes, nothing is lost, nothing is left, nothing breaks.

    python -m benchmarks.hostile --minutes 30 [--jobs 2] [--seed 0] [--write]

A tiny model is trained, exported and validated once. Each case copies it into a house of its own (a home folder with a user's
files, the folder of models, TMPDIR), changes something in it (`table.py`), and runs one command (`commands.py`). The judge
(`judge.py`) then asks: is the exit code one of those the toolkit has, is there no traceback and no escape sequence, is
everything outside the model's folder as it was, is no process left, did memory and time stay within their limits. Some cases kill
the command, or fail one of its system calls, at each call that changes files (`kills.py`).

Most commands run in a fork of a process that has done the imports; some, and every finding once more, run as
`python -m toolkit …`. To add a change: a function, and one line in `MUTATORS`. To add a command: one line in `COMMANDS`.
"""
