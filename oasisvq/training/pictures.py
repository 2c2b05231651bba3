"""The pictures of a run folder, drawn during a training.

They take a small share of its time, and a failure in them never stops the training.
"""

import time
from collections.abc import Callable
from pathlib import Path

from oasisvq.files import write_atomically

CURVES_FILE = "curves.png"
PANEL_FILE = "panel.png"
SHARE_OF_TIME = 0.02  # if pictures would take more of an epoch, it ends without new ones
FIRST_SECONDS = 0.5  # assumed cost of the pictures before they were drawn once

Drawings = dict[str, Callable[[], bytes]]  # file name -> what makes its content


class Pictures:
    """Draws the pictures of one run folder.

    Attributes:
        due: whether an epoch has ended since they were drawn.
    """

    def __init__(self, run: Path, note: Callable[[str], None]) -> None:
        self.run, self.note = run, note
        self.due = False
        self._seconds = FIRST_SECONDS
        self._ended = time.monotonic()
        self._given_up: set[str] = set()

    def draw(self, drawings: Drawings, at_once: bool = False) -> None:
        """Draw the pictures at the end of an epoch, unless that would take too much of the time.

        Args:
            drawings: what to draw.
            at_once: draw in any case, since nothing comes after.
        """
        began = time.monotonic()
        self.due = not at_once and self._seconds > SHARE_OF_TIME * (began - self._ended)
        if self.due:
            return
        for name, drawing in drawings.items():
            if name not in self._given_up:
                self._draw(name, drawing)
        self._ended = time.monotonic()
        self._seconds = self._ended - began

    def _draw(self, name: str, drawing: Callable[[], bytes]) -> None:
        try:
            write_atomically(self.run / name, drawing())
            return
        except ImportError as error:
            missing = (error.name or str(error)).partition(".")[0]
            self.note(f"no {name}: it is drawn by {missing}; `pip install {missing}` brings it")
        except Exception as error:  # of any kind: the training is worth more than a picture
            self.note(f"no {name} from here on: {error}")
        self._given_up.add(name)
