"""One process of a tiny training that torchrun starts: `ranks_driver.py RUN [RANK STEP]`.

After every step of a codec it compares the codebooks and weights of all processes to the bit. With RANK
and STEP, that process dies before that step.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from oasisvq.cli.app import main
from oasisvq.training.codec_training import Training

DYING_RANK, DYING_STEP = (int(each) for each in sys.argv[2:4]) if len(sys.argv) > 2 else (-1, -1)
plain_step = Training.train_step


def checked_step(self: Training, order: Tensor) -> None:
    """One step, after which all codebooks and weights must be equal."""
    if (self.world.rank, self.step) == (DYING_RANK, DYING_STEP):
        os._exit(9)
    plain_step(self, order)
    weights = (parameter.detach() for _, parameter in self.parameters)
    learned = torch.cat([each.flatten() for each in (self.model.quantizer.codebooks, *weights)])
    everyones = [torch.empty_like(learned) for _ in range(self.world.size)]
    dist.all_gather(everyones, learned)
    if not all(torch.equal(learned, each) for each in everyones):
        print(f"models differ after step {self.step}", file=sys.stderr)
        os._exit(8)


Training.train_step = checked_step
OPTIONS = (
    "--preset seed --epochs 2 --batch-size 4 --codebook-size 16 --device cpu --precision float32 "
    "--prior-epochs 2 --volumes-epochs 6 --no-residue"
)
main(["train", "data", "more", "-o", str(Path(sys.argv[1])), *OPTIONS.split()])
