"""The pictures of a run folder, drawn as a training goes.

They may take a small share of its time, and what fails in them never fails the training.
"""

import time
from collections.abc import Callable
from pathlib import Path

from oasisvq.files import write_atomically

CURVES_FILE = "curves.png"
PANEL_FILE = "panel.png"
SHARE_OF_TIME = 0.02  # epochs that are shorter than this allows end without new pictures
FIRST_SECONDS = 0.5  # what the pictures are taken to cost before they were drawn once

Drawings = dict[str, Callable[[], bytes]]  # file name -> what makes its content


class Pictures:
    """Draws the pictures of one run folder.

    Attributes:
        due: an epoch has ended since they were drawn.
    """

    def __init__(self, run: Path, note: Callable[[str], None]) -> None:
        self.run, self.note = run, note
        self.due = False
        self._seconds = FIRST_SECONDS
        self._ended = time.monotonic()
        self._given_up: set[str] = set()

    def draw(self, drawings: Drawings, at_once: bool = False) -> None:
        """Draw what an epoch's end has changed, unless that would take too much of the time.

        Args:
            drawings: what to draw.
            at_once: draw in any case, for nothing comes after.
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
        except Exception as error:  # whatever it is, the training is worth more
            self.note(f"no {name} from here on: {error}")
        self._given_up.add(name)
