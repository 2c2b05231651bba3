"""python -m oasisvq."""

from oasisvq.cli import main

if __name__ == "__main__":
    main()
