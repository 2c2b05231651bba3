"""Encodes a folder of scans, except those left out, in two processes; and then once more.

python examples/folder_of_scans.py slices/ codes/ "case_002*"

The second run finds all files finished, and does not even read the model.
"""

import subprocess
import sys

slices, codes, left_out = sys.argv[1:]
command = [sys.executable, "-m", "oasisvq", "encode", slices, "-o", codes, "--jobs", "2"]
for _ in range(2):
    subprocess.run([*command, "--include", "*.png", "--exclude", left_out], check=True)
