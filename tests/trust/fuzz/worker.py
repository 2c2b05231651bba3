"""One fuzz target in this process, by atheris: `worker.py TARGET FOLDER [libFuzzer's options]`.

Started by `run.py`. A crash input by itself: `worker.py TARGET FOLDER INPUT` prints the traceback.
"""

import random
import sys
import warnings
from pathlib import Path

import atheris

BESIDE_OURS = {"image": "PIL", "volume": "nibabel", "dicom": "pydicom"}
# what runs most: telling of every branch there would take three times as long
LEFT_OUT = [
    f"pydicom.{module}"
    for module in (
        *("charset", "config", "datadict", "dataelem", "dataset", "filebase", "filereader", "fileutil"),
        *("hooks", "multival", "tag", "uid", "valuerep", "values"),
    )
]


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    packages = ["oasisvq", *([BESIDE_OURS[name]] if name in BESIDE_OURS else [])]
    with atheris.instrument_imports(include=packages, exclude=LEFT_OUT if name == "dicom" else []):
        from targets import TARGETS

    from harness import Examiner

    target = TARGETS[name]
    warnings.simplefilter("error", RuntimeWarning)  # the user would see it
    for seed in target.seeds():
        Examiner(target, folder)(seed)  # what is imported and cached on the way is no memory of an input
    examine = Examiner(target, folder)

    def mutate(content: bytes, most_bytes: int, seed: int) -> bytes:
        def change_bytes(part: bytes) -> bytes:
            return atheris.Mutate(part, max(len(part) + most_bytes - len(content), 1))

        return target.mutate(content, random.Random(seed), change_bytes)[:most_bytes]

    options = [sys.argv[0], f"-max_len={target.most_bytes}", *sys.argv[3:]]
    atheris.Setup(options, examine, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
