"""A folder of scans to a folder of codes in two processes, but for what is left out; and once more.

python examples/folder_of_scans.py slices/ codes/ "case_002*"

The second run finds all files finished, and reads no model.
"""

import subprocess
import sys

slices, codes, left_out = sys.argv[1:]
command = [sys.executable, "-m", "oasisvq", "encode", slices, "-o", codes, "--jobs", "2"]
for _ in range(2):
    subprocess.run([*command, "--include", "*.png", "--exclude", left_out], check=True)
