"""Small trees of every OASIS layout, with drawn heads in which right differs from left."""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray
from PIL import Image

SIDES = (24, 30, 28)  # millimetres to the right, front and top
MARK = (slice(15, 19), slice(19, 23))  # right and front of the middle, at every height
HIGH_MARK = (slice(5, 9), slice(7, 11), slice(19, 23))  # left, back and high


def draw_head(labels: bool = False, seed: int = 0) -> NDArray[np.int16]:
    """(R, A, S) voxels of 1 mm: an ellipsoid in faint noise with marks of 900; or its labels."""
    axes = [(np.arange(side) - (side - 1) / 2) / (side / 2 - 2) for side in SIDES]
    radius = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij")))
    if labels:
        return np.digitize(-radius, [-1, -0.7, -0.4]).astype(np.int16)
    rng = np.random.default_rng(seed)
    head = np.where(radius < 1, 600 - 400 * radius, 0) + rng.integers(0, 12, SIDES)
    head[(*MARK, slice(6, 22))] = 900
    head[HIGH_MARK] = 900
    return head.astype(np.int16)


def stored_as(
    head: NDArray[np.generic], codes: str, affine: NDArray[np.float64]
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Voxels of a RAS array with axes that grow to `codes`, and their affine."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    return apply_orientation(head, turn), affine @ inv_ornt_aff(turn, head.shape)


def write_nifti(
    path: Path,
    head: NDArray[np.generic],
    codes: str = "LAS",
    zooms: tuple[float, float, float] = (1, 1, 1),
    code: int = 1,
) -> Path:
    """A NIfTI volume that shows the head in a given orientation; `path` may be .nii, .nii.gz or .hdr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels, affine = stored_as(head, codes, np.diag([*zooms, 1]))
    kind = nib.Nifti1Pair if path.suffix == ".hdr" else nib.Nifti1Image
    image = kind(voxels, affine)
    image.set_sform(affine, code=code)
    image.set_qform(affine, code=code)
    image.to_filename(path)
    return path


def write_analyze(
    path: Path,
    head: NDArray[np.generic],
    codes: str,
    zooms: tuple[float, float, float] = (1, 1, 1),
    trailing: int = 0,
) -> Path:
    """A big-endian Analyze pair, stored as `codes`, of which its header says nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels, affine = stored_as(head, codes, np.diag([*zooms, 1]))
    voxels = voxels.reshape(voxels.shape + (1,) * trailing)
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    header.set_data_shape(voxels.shape)
    header.set_zooms((*np.sqrt(np.square(affine[:3, :3]).sum(0)), *(1,) * trailing))
    path.write_bytes(header.binaryblock)
    path.with_suffix(".img").write_bytes(voxels.astype(">i2").tobytes(order="F"))
    return path


def at_zooms(head: NDArray[np.int16], zooms: tuple[float, float, float]) -> NDArray[np.int16]:
    """The head in voxels of other sizes, by their nearest millimetres."""
    for axis, zoom in enumerate(zooms):
        count = round(head.shape[axis] / zoom)
        places = ((np.arange(count) + 0.5) * zoom).astype(int)
        head = head.take(places, axis=axis)
    return head


def oasis1_session(root: Path, name: str, averaged: int = 4, t88: bool = True, sbj: bool = True) -> None:
    """One session folder of OASIS-1, with everything that lies in it."""
    folder, stem = root / name, f"{name}_mpr_n{averaged}_anon"
    processed = folder / "PROCESSED" / "MPRAGE"
    raw = at_zooms(draw_head(), (1.25, 1, 1))
    for repeat in (1, 2):
        path = folder / "RAW" / f"{name}_mpr-{repeat}_anon.hdr"
        write_analyze(path, raw, "ASL", (1.25, 1, 1), trailing=1)
    thumbnail = folder / "RAW" / f"{name}_mpr-1_anon_sag_66.gif"
    Image.new("P", (8, 8)).save(thumbnail)
    if sbj:
        path = processed / "SUBJ_111" / f"{stem}_sbj_111.hdr"
        write_analyze(path, draw_head(), "ASL", trailing=1)
    if t88:
        atlas = processed / "T88_111"
        write_analyze(atlas / f"{stem}_111_t88_gfc.hdr", draw_head(), "LAS", trailing=1)
        brain = np.where(draw_head(labels=True) > 0, draw_head(), 0)
        write_analyze(atlas / f"{stem}_111_t88_masked_gfc.hdr", brain, "LAS", trailing=1)
        Image.new("P", (8, 8)).save(atlas / f"{stem}_111_t88_gfc_cor_110.gif")
        segmentation = folder / "FSL_SEG" / f"{stem}_111_t88_masked_gfc_fseg.hdr"
        write_analyze(segmentation, draw_head(labels=True), "LAS", trailing=1)


def oasis1(root: Path) -> Path:
    """Two visits of one person, other numbers of averages, and sessions without parts of it."""
    oasis1_session(root / "disc1", "OAS1_0001_MR1")
    oasis1_session(root / "disc1", "OAS1_0001_MR2", averaged=3)
    oasis1_session(root / "disc1", "OAS1_0002_MR1", averaged=6)
    oasis1_session(root / "disc2", "OAS1_0042_MR1", t88=False)
    oasis1_session(root / "disc2", "OAS1_0043_MR1", t88=False, sbj=False)
    return root


def oasis2(root: Path) -> Path:
    """A person of two visits as NIfTI pairs, one as Analyze, one as nii.gz."""
    for session in ("OAS2_0001_MR1", "OAS2_0001_MR2"):
        for repeat in (1, 2, 3):
            path = root / "OAS2_RAW_PART1" / session / "RAW" / f"mpr-{repeat}.nifti.hdr"
            write_nifti(path, draw_head()[..., None], "ASL")
    folder = root / "OAS2_RAW_PART2"
    write_analyze(folder / "OAS2_0002_MR1" / "RAW" / "mpr-1.nifti.hdr", draw_head(), "ASL", trailing=1)
    write_nifti(folder / "OAS2_0004_MR3" / "RAW" / "mpr-2.nii.gz", draw_head(), "PIR")
    return root


def oasis3(root: Path) -> Path:
    """The folders and names of several releases; T2w and FLAIR beside T1w, and two runs."""
    first = root / "OAS30001_MR_d0129" / "anat1"
    write_nifti(first / "sub-OAS30001_ses-d0129_run-01_T1w.nii.gz", draw_head(), "PSR")
    write_nifti(first / "sub-OAS30001_ses-d0129_run-02_T1w.nii.gz", draw_head(), "PSR")
    write_nifti(first / "sub-OAS30001_ses-d0129_T2w.nii.gz", draw_head(), "PSR")
    later = root / "OAS30001_MR_d0757" / "anat2" / "NIFTI"
    write_nifti(later / "sub-OAS30001_sess-d0757_acq-TSE_T2w.nii.gz", draw_head())
    write_nifti(later / "sub-OAS30001_sess-d0757_T1w.nii.gz", draw_head(), "LAS", code=0)
    third = root / "OAS30002_MR_d0371" / "anat1"
    write_nifti(third / "sub-OAS30002_ses-d0371_T1w.nii.gz", draw_head(), "LIA")
    write_nifti(third / "sub-OAS30002_ses-d0371_FLAIR.nii.gz", draw_head())
    write_nifti(root / "OAS30003_MR_d0001" / "anat1" / "sub-OAS30003_ses-d0001_T2w.nii.gz", draw_head())
    return root


def neurite(root: Path) -> Path:
    """Values in 0 to 1, segmentations of two kinds, and 2-D slices beside them."""
    labels = draw_head(labels=True)
    for session in ("OAS1_0001_MR1", "OAS1_0002_MR1", "OAS1_0002_MR2"):
        folder = root / f"OASIS_{session}"
        scan = (draw_head() / 900).astype(np.float32)
        brain = np.where(labels > 0, scan, 0)
        for prefix, codes in (("", "LIA"), ("aligned_", "RAS")):
            write_nifti(folder / f"{prefix}orig.nii.gz", scan, codes)
            write_nifti(folder / f"{prefix}norm.nii.gz", brain, codes)
            write_nifti(folder / f"{prefix}seg4.nii.gz", labels.astype(np.uint8), codes)
            write_nifti(folder / f"{prefix}seg35.nii.gz", (labels * 11).astype(np.uint8), codes)
        write_nifti(folder / "slice_orig.nii.gz", scan[:, 15:16])
    return root


def task(root: Path) -> Path:
    """neurite-oasis as the challenges hand it out."""
    for number in (1, 2, 3):
        name = f"OASIS_{number:04d}_0000.nii.gz"
        scan = (draw_head() / 900).astype(np.float32)
        write_nifti(root / "imagesTr" / name, scan, "LIA")
        write_nifti(root / "labelsTr" / name, draw_head(labels=True).astype(np.uint8), "LIA")
    write_nifti(root / "imagesTs" / "OASIS_0400_0000.nii.gz", scan, "LIA")
    (root / "dataset.json").write_text("{}")
    return root


def kaggle(root: Path) -> Path:
    """JPEG slices in folders of diagnoses; grey, some stored as RGB."""
    for diagnosis, session in (
        ("Non Demented", "OAS1_0001_MR1"),
        ("Non Demented", "OAS1_0001_MR2"),
        ("Mild Dementia", "OAS1_0028_MR1"),
        ("Very mild Dementia", "OAS1_0003_MR1"),
    ):
        folder = root / "Data" / diagnosis
        folder.mkdir(parents=True, exist_ok=True)
        for repeat in (1, 2):
            for number in (99, 100, 101):
                plane = np.rint(draw_head()[:, :, number - 90] * 255 / 900).clip(0, 255)
                image = Image.fromarray(plane.astype(np.uint8))
                kind = "RGB" if repeat == 2 else "L"
                image.convert(kind).save(folder / f"{session}_mpr-{repeat}_{number}.jpg", quality=95)
    return root


def bids(root: Path) -> Path:
    """Two persons, one of them twice; other contrasts, series, field maps and derivatives beside T1w."""
    labels = draw_head(labels=True).astype(np.uint8)
    for where in ("sub-01/ses-a", "sub-01/ses-b", "sub-02/ses-a"):
        name = where.replace("/", "_")
        for run in ("run-1", "run-2"):
            write_nifti(root / where / "anat" / f"{name}_{run}_T1w.nii.gz", draw_head(), "PSR")
        write_nifti(root / where / "anat" / f"{name}_T2w.nii.gz", draw_head(), "PSR")
        write_nifti(root / where / "fmap" / f"{name}_magnitude1.nii.gz", draw_head(), "PSR")
        series = np.stack([draw_head(), draw_head()], axis=-1)
        write_series(root / where / "func" / f"{name}_task-rest_bold.nii.gz", series)
        (root / where / "anat" / f"{name}_T2w.json").write_text("{}")
        made = root / "derivatives" / "fmriprep" / where / "anat"
        for space in ("", "_space-MNI152Lin"):
            write_nifti(made / f"{name}{space}_desc-preproc_T1w.nii.gz", draw_head())
            write_nifti(made / f"{name}{space}_desc-brain_mask.nii.gz", (labels > 0).astype(np.uint8))
            write_nifti(made / f"{name}{space}_dseg.nii.gz", labels)
            write_nifti(made / f"{name}{space}_label-GM_probseg.nii.gz", draw_head() / np.float32(900))
        write_nifti(made / f"{name}_desc-aparcaseg_dseg.nii.gz", labels.astype(np.int16) * 1000)
    (root / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\n")
    (root / "dataset_description.json").write_text("{}")
    return root


def write_series(path: Path, voxels: NDArray[np.generic]) -> None:
    """A NIfTI file of several volumes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(path)


TREES = {
    "oasis1": oasis1,
    "oasis2": oasis2,
    "oasis3": oasis3,
    "neurite": neurite,
    "task": task,
    "kaggle": kaggle,
    "bids": bids,
}


def six_scans(folder: Path) -> Path:
    """A folder of six volumes of six persons."""
    for number in range(1, 7):
        path = folder / f"OAS1_{number:04d}_MR1_scan.nii.gz"
        write_nifti(path, draw_head(seed=number), ("LAS", "PSR")[number % 2])
    return folder


def spoil(scans: Path) -> dict[str, str]:
    """Make four of `six_scans` unusable; gives their names and what is wrong."""
    nan = draw_head().astype(np.float32)
    nan[5, 5, 5] = np.nan
    write_nifti(scans / "OAS1_0001_MR1_scan.nii.gz", nan)
    (scans / "OAS1_0002_MR1_scan.nii.gz").write_bytes(b"")
    content = (scans / "OAS1_0003_MR1_scan.nii.gz").read_bytes()
    (scans / "OAS1_0003_MR1_scan.nii.gz").write_bytes(content[:-2000])
    (scans / "OAS1_0004_MR1_scan.nii.gz").unlink()
    write_analyze(scans / "OAS1_0004_MR1_scan.hdr", draw_head(), "LAS").with_suffix(".img").unlink()
    return {
        "OAS1_0001_MR1_scan.nii.gz": "NaN",
        "OAS1_0002_MR1_scan.nii.gz": "an empty file",
        "OAS1_0003_MR1_scan.nii.gz": "truncated",
        "OAS1_0004_MR1_scan.hdr": "half of a pair",
    }
