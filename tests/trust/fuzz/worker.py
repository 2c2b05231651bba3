"""One fuzz target in this process, by atheris: `worker.py TARGET FOLDER [libFuzzer's options]`.

Started by `run.py`. A crash input by itself: `worker.py TARGET FOLDER INPUT` prints the traceback.
"""

import random
import sys
import warnings
from pathlib import Path

import atheris

INSTRUMENTED = {
    "image": ["oasisvq", "PIL"],
    "volume": ["oasisvq", "nibabel"],
    "dicom": ["oasisvq", "pydicom.filereader", "pydicom.encaps", "pydicom.values", "pydicom.pixels"],
}


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    with atheris.instrument_imports(include=INSTRUMENTED.get(name, ["oasisvq"])):
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
