"""Names that mean harm, and array files that hold names."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from conftest import Result

Run = Callable[..., Result]

# what stands in a name: an escape sequence, one of a single byte, line ends, a turn of direction, a
# byte of no Unicode, markup of rich, mathtext and HTML
HOSTILE = "a\x1b[31m\x9b2J\r\nb\u202ec\u2066[red][link=x]$_^{$<b>&\"'" + os.fsdecode(b"\xfc")
RAW = ("\x1b", "\x9b", "\r", "\u202e", "\u2066", "\udcfc", "a\nb")


def assert_shown_safely(result: Result, code: int = 0) -> None:
    """It ended with this code, without a traceback, and nothing unprintable was shown."""
    assert result.code == code, result
    for line in (result.out + result.err).split("\n"):
        assert line.isprintable(), result
    assert "Traceback" not in result.err


def token_arrays(*names: str) -> dict[str, Any]:
    """An array file of constant images."""
    count = len(names)
    return {
        "indices": np.full((count, 1, 1, 1), 65_535, np.uint16),
        "files": np.arange(count, dtype=np.int32),
        "positions": np.zeros(count, np.int32),
        "windows": np.zeros((count, 4), np.int32),
        "origins": np.zeros((count, 2), np.int32),
        "shapes": np.full((count, 2), 9, np.int32),
        "intensities": np.full((count, 2), 7, np.float64),
        "sample_types": np.zeros(count, np.uint8),
        "levels": np.ones(count, np.uint8),
        "headers": np.zeros(0, np.uint8),
        "header_ends": np.zeros(count, np.int64),
        "codebook": np.array([20, 8], np.int32),
        "fingerprint": np.zeros(8, np.uint8),
        "names": np.array(names),
        "subjects": np.array(["" for _ in names]),
    }
