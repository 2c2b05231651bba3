"""How codebooks learn, on vectors small enough to follow by hand."""

import pytest
import torch

from oasisvq.training.codebooks import DECAY, CodebookLearner
from oasisvq.training.distributed import World
from oasisvq.training.quantizer import ResidualQuantizer, to_vectors

ALONE = World(0, 1, torch.device("cpu"))


def clusters(centres: torch.Tensor, each: int, noise: float = 0.01) -> torch.Tensor:
    """Latents (1, D, each, K) around the centres (K, D)."""
    generator = torch.Generator().manual_seed(2)
    vectors = centres[:, :, None] + noise * torch.randn((*centres.shape, each), generator=generator)
    return vectors.permute(1, 2, 0)[None]


@pytest.fixture
def learner() -> CodebookLearner:
    return CodebookLearner(ResidualQuantizer(levels=2, codebook_size=4, code_dim=3), ALONE)


CENTRES = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [-1.0, -1.0, 0]])


def test_kmeans_finds_clusters_and_the_next_level_what_is_left(learner: CodebookLearner) -> None:
    latents = clusters(CENTRES, each=32)
    generator = torch.Generator().manual_seed(0)
    learner.start_with_kmeans(latents, generator)
    found = learner.quantizer.codebooks[0]
    # whatever the start, each vector is much nearer to a code than clusters are to one another
    assert torch.cdist(to_vectors(latents), found).amin(1).square().mean() < 0.2
    used = torch.cdist(to_vectors(latents), found).argmin(1).unique()
    for code in used:  # Lloyd's fixed point: a code is the mean of what it is nearest to
        own = to_vectors(latents)[torch.cdist(to_vectors(latents), found).argmin(1) == code]
        torch.testing.assert_close(found[code], own.mean(0), rtol=1e-3, atol=1e-3)
    indices = learner.quantizer.quantize(latents, torch.tensor([2]))
    one, two = (
        (learner.quantizer.dequantize(indices[:, :levels]) - latents).square().mean()
        for levels in (1, 2)
    )
    assert two < one


def test_an_update_is_the_moving_average(learner: CodebookLearner) -> None:
    learner.quantizer.codebooks.copy_(torch.stack([CENTRES, 0.01 * CENTRES]))
    learner.counts.fill_(10.0)
    learner.sums.copy_(learner.quantizer.codebooks * 10)
    latents = (CENTRES[:1] * 1.2).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)  # four vectors near code 0
    quantized = learner.quantize(latents, torch.tensor([2]))
    learner.update(quantized, torch.Generator())
    count = DECAY * 10 + (1 - DECAY) * 4
    mean = (DECAY * 10 * 1.0 + (1 - DECAY) * 4 * 1.2) / count
    assert learner.counts[0, 0].item() == pytest.approx(count)
    assert learner.quantizer.codebooks[0, 0, 0].item() == pytest.approx(mean, rel=1e-4)
    assert learner.usage[0].tolist() == [4, 0, 0, 0]
    assert learner.active().tolist()[0] == 1
    assert learner.perplexity()[0].item() == pytest.approx(1)


def test_a_dead_code_takes_over_a_vector_of_the_batch_with_its_averages(
    learner: CodebookLearner,
) -> None:
    learner.quantizer.codebooks.copy_(torch.stack([CENTRES, CENTRES]))
    learner.counts.fill_(10.0)
    learner.counts[0, 3] = 0.01
    learner.sums.copy_(learner.quantizer.codebooks * learner.counts[:, :, None])
    latents = clusters(CENTRES[:3], each=8)
    learner.update(learner.quantize(latents, torch.tensor([1])), torch.Generator().manual_seed(1))
    revived = learner.quantizer.codebooks[0, 3]
    assert torch.cdist(revived[None], to_vectors(latents)).min() == 0
    assert learner.counts[0, 3] > 1
    torch.testing.assert_close(learner.sums[0, 3] / learner.counts[0, 3], revived)


def test_the_gradient_passes_straight_through(learner: CodebookLearner) -> None:
    learner.quantizer.codebooks.copy_(torch.stack([CENTRES, 0.1 * CENTRES]))
    latents = clusters(CENTRES, each=2).requires_grad_()
    quantized = learner.quantize(latents, torch.tensor([2]))
    (quantized.latents * 3).sum().backward()
    assert latents.grad is not None
    assert (latents.grad == 3).all()


def test_only_the_kept_levels_reach_the_decoder(learner: CodebookLearner) -> None:
    learner.quantizer.codebooks.copy_(torch.stack([CENTRES, 0.1 * CENTRES]))
    latents = clusters(CENTRES, each=2, noise=0.05).expand(2, -1, -1, -1)
    quantized = learner.quantize(latents, torch.tensor([1, 2]))
    indices = learner.quantizer.quantize(latents, torch.tensor([1, 2]))
    for image, levels in ((0, 1), (1, 2)):
        expected = learner.quantizer.dequantize(indices[image : image + 1, :levels])
        torch.testing.assert_close(quantized.latents[image : image + 1], expected)


def test_commitment_is_the_mean_squared_error_of_all_prefixes(learner: CodebookLearner) -> None:
    learner.quantizer.codebooks.copy_(torch.stack([CENTRES, 0.1 * CENTRES]))
    latents = clusters(CENTRES, each=4, noise=0.1)
    indices = learner.quantizer.quantize(latents, torch.tensor([1]))
    errors = [
        (latents - learner.quantizer.dequantize(indices[:, :levels])).square().mean()
        for levels in (1, 2)
    ]
    commitment = learner.quantize(latents, torch.tensor([1])).commitment
    torch.testing.assert_close(commitment, torch.stack(errors).mean())


def test_quantizing_changes_no_codebook(learner: CodebookLearner) -> None:
    learner.quantizer.codebooks.copy_(torch.stack([CENTRES, 0.1 * CENTRES]))
    before = learner.quantizer.codebooks.clone()
    learner.quantize(clusters(CENTRES, each=4), torch.tensor([2]))
    assert torch.equal(learner.quantizer.codebooks, before)
    assert not learner.usage.any()
