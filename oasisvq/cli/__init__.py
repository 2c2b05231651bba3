"""The command line: one file a command, each of which parses, makes one call and prints.

`app.py` lists the commands and catches their errors once. What they share: `options.py`,
`chosen.py` (what an option names), `printing.py` and `exits.py`. Results go to stdout, notes and
progress to stderr. torch and NumPy are imported inside the commands that need them, so that help,
version and `info` of a `.codes` file answer at once.
"""
