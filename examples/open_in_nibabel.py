"""`nibabel.load` opens `.codes` files of volumes, after one import.

python examples/open_in_nibabel.py volume.codes
"""

import sys

import nibabel
import numpy as np

import oasisvq.nibabel  # noqa: F401 - registers the format

image = nibabel.load(sys.argv[1])
voxels = image.get_fdata()
print(type(image).__name__, image.shape, image.header.get_zooms())
print(f"axes to {''.join(nibabel.aff2axcodes(image.affine))}, mean {voxels[voxels > 0].mean():.1f}")
nibabel.save(nibabel.Nifti1Image(np.sqrt(np.abs(voxels)), image.affine), "root.nii.gz")
