"""Trains a small transformer on level 1: it predicts each cell from the cells before it.

python examples/token_transformer.py codes/ [steps]
"""

import sys

import torch
from torch import nn

from oasisvq.torch import TokenDataset

dataset = TokenDataset(sys.argv[1], levels=1)
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 500
size, cells = dataset.vocabulary.size, dataset[0]["tokens"].numel()
layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
embed, place = nn.Embedding(size, 64), nn.Parameter(torch.zeros(cells, 64))
body, head = nn.TransformerEncoder(layer, 2), nn.Linear(64, size)
parameters = [place, *(p for part in (embed, body, head) for p in part.parameters())]
optimiser = torch.optim.AdamW(parameters, 3e-3)
causal = nn.Transformer.generate_square_subsequent_mask(cells)
sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=16 * steps)
for step, batch in enumerate(torch.utils.data.DataLoader(dataset, 16, sampler=sampler)):
    tokens = batch["tokens"].flatten(1)  # (16, h * w)
    before = nn.functional.pad(tokens[:, :-1], (1, 0), value=dataset.vocabulary.pad)
    guessed = head(body(embed(before) + place, mask=causal, is_causal=True))
    loss = nn.functional.cross_entropy(guessed.flatten(0, 1), tokens.flatten())
    optimiser.zero_grad(), loss.backward(), optimiser.step()
    if step % 10 == 0 or step == steps - 1:
        print(f"step {step}: {loss.item() / 0.6931:.3f} bits a token")
