"""Exports the tokens of a folder as a store that is mapped into memory, and looks at one slice of it.

python examples/export_volumes.py codes/ all.tokens
"""

import subprocess
import sys
from pathlib import Path

from oasisvq.tokens import read_tokens

folder, store = sys.argv[1:]
command = [sys.executable, "-m", "oasisvq", "export", folder, "-o", store]
subprocess.run(command, check=True)
tokens = read_tokens(Path(store))
print(f"{tokens.slices:,} slices of {len(tokens):,} file(s), {tokens.arrays['indices'].shape}")
file, position = tokens.arrays["files"][0], tokens.arrays["positions"][0]
print(f"{tokens.names[file]}, slice {position}: window {tokens.arrays['windows'][file]}")
