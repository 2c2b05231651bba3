"""Copies a prepared dataset, and adds skull-stripped copies of some of its training slices.

oasisvq preprocess keras_png_slices_data -o data/
oasisvq preprocess keras_png_slices_data -o labels/ --images segmentations --size 256
python examples/add_stripped.py data/ labels/ -o data-stripped/

A model that has only seen whole heads does poorly on skull-stripped ones. Where there are tissue labels
of the same slice, the brain that they fill is cut out and stretched to the whole range of grey levels.
The bundled model was trained on such a dataset.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oasisvq.data.dataset import Dataset, array_checksum, manifest_bytes, open_dataset

CLOSED_OVER = 4  # pixels of closing, so that furrows between the labels belong to the brain
FEWEST_PIXELS = 1_500  # slices with a smaller area of brain are left out


def stripped(plane: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """A slice (H, W) cut to its closed and filled labels (H, W); None if these cover too little."""
    padded = np.pad(labels > 0, 2 * CLOSED_OVER)
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(padded, iterations=CLOSED_OVER))
    height, width = plane.shape
    brain = closed[2 * CLOSED_OVER :, 2 * CLOSED_OVER :][:height, :width]
    if brain.sum() < FEWEST_PIXELS:
        return None
    cut = np.where(brain, plane, 0)
    grey: NDArray[np.uint8] = np.rint(cut * 255.0 / max(int(cut.max()), 1)).astype(np.uint8)
    return grey


def with_stripped(scans: Dataset, labels: Dataset, folder: Path, every: int) -> Dataset:
    """Write the arrays of the new dataset, and return it; subjects differ in which slices are added."""
    split = scans.splits["train"]
    planes, maps = scans.array("train"), labels.array("train")
    place_of = {
        (record.subject, record.slice_number): place
        for place, record in enumerate(labels.splits["train"].records)
    }
    subjects = dict.fromkeys(record.subject for record in split.records)
    turn = {subject: number for number, subject in enumerate(subjects)}
    added, records = [], []
    for place, record in enumerate(split.records):
        at = place_of.get((record.subject, record.slice_number))
        if at is None or (record.slice_number + turn[record.subject]) % every:
            continue
        plane = stripped(planes[place], maps[at])
        if plane is not None:
            added.append(plane)
            records.append(dataclasses.replace(record, source=f"stripped/{record.source}"))
    if not added:
        raise SystemExit("no training slice of the two datasets is of the same subject and number")
    folder.mkdir(parents=True)
    array = np.concatenate([planes, np.stack(added)])
    np.save(folder / "train.npy", array)
    train = dataclasses.replace(split, records=(*split.records, *records), sha256=array_checksum(array))
    for name in scans.splits.keys() - {"train"}:
        np.save(folder / f"{name}.npy", scans.array(name))
    return dataclasses.replace(scans, folder=folder, splits=scans.splits | {"train": train})


def main() -> None:
    """Write the new dataset to a folder of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scans", type=Path, help="prepared scans")
    parser.add_argument("labels", type=Path, help="prepared segmentations of the same slices")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--every", type=int, default=4, help="one slice in so many (default 4)")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output}: there already; choose another name")
    scans, labels = open_dataset(arguments.scans), open_dataset(arguments.labels)
    if scans.size != labels.size:
        parser.error(f"scans of {scans.size} pixels to a side, labels of {labels.size}")
    dataset = with_stripped(scans, labels, arguments.output, arguments.every)
    (arguments.output / "manifest.json").write_bytes(manifest_bytes(dataset))
    old, new = (len(each.splits["train"].records) for each in (scans, dataset))
    print(f"{arguments.output}: {old} training slices and {new - old} skull-stripped ones")


if __name__ == "__main__":
    main()
