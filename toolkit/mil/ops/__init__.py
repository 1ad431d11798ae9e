"""The ops: one small function each, whose docstring is its specification; `table.py` has the one literal table OPS.

Nothing here knows of files, names or modes: tensors and plain Python values in, tensors out.
"""
