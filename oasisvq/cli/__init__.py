"""The command line: one file per command. A command parses, makes one call and prints.

`app.py` lists the commands and catches their errors once. The commands share `options.py`,
`chosen.py` (models, outputs and shards that options name), `printing.py` and `exits.py`. Results go to
stdout, notes and progress to stderr. torch and NumPy are imported inside the commands that need them,
so that help, version and `info` of a `.codes` file answer at once.
"""
