"""python -m oasisvq, and the command `oasisvq`."""

import sys


def start() -> None:
    """Run the command line; Ctrl-C is handled from here on, also while modules are imported."""
    try:
        from oasisvq.cli.app import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    start()
