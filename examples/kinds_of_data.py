"""Makes the samples of a model have the kinds of slices in a dataset, as often as the dataset has them.

python examples/kinds_of_data.py model.safetensors data/ -o other.safetensors

The prior first draws the kind of a slice, as often as the training split of the model had it. So a model
that was also trained on skull-stripped slices draws those too. If its kinds are counted again over whole
heads, it draws whole heads. It codes both as before, but the kind of a stripped slice takes up to two
bytes. The kinds of the bundled model were counted in this way. Other frequencies make another prior:
files coded with one cannot be read with the other.
"""

import argparse
from pathlib import Path

from oasisvq.codec.codec import Codec
from oasisvq.codec.modelfile import write_model
from oasisvq.codec.prior import Prior
from oasisvq.data.dataset import open_dataset
from oasisvq.errors import OasisVQError
from oasisvq.training.prior_network import kind_frequencies


def main() -> None:
    """Write the model with other frequencies of kinds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="a prepared dataset, whose training split is counted")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output}: there already; choose another name")
    try:
        codec, dataset = Codec.load(arguments.model), open_dataset(arguments.data)
    except OasisVQError as error:
        parser.error(str(error))
    prior = codec.prior
    if prior is None:
        parser.error(f"{arguments.model}: a model without a prior")
    if "train" not in dataset.splits:
        parser.error(f"{arguments.data}: a dataset without a training split")
    counts = [0] * prior.config.kinds
    for plane in dataset.array("train"):
        counts[prior.kind_of(codec.latents(plane))] += 1
    counted = Prior(prior.config, prior.arrays | {"kinds.frequency": kind_frequencies(counts)})
    file = codec.file.with_prior(counted, codec.card)
    write_model(file, arguments.output)
    met = sum(count > 0 for count in counts)
    print(f"{arguments.output}: model {file.fingerprint.hex()}, {met} kinds met")


if __name__ == "__main__":
    main()
