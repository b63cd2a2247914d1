"""Handwritten digits for the MNIST experiment: from TFDS, from idx files, or scikit-learn's, without a download."""

import dataclasses
import gzip
import logging
from pathlib import Path

import numpy as np

from c2am_jax.errors import UserError

_LOG = logging.getLogger(__name__)
NUM_CLASSES = 10
FEW = (7, 8, 9)  # the classes that are cut
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
DIGITS_TEST_SHARE = 0.4
NEEDS_SKLEARN = "needs scikit-learn: pip install scikit-learn"


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images float32 [N, H, W, 1] in [0, 1] and labels int32 [N] of both splits.

    Attributes:
      few: images that each class of `FEW` keeps in the imbalanced set.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    few: int


def _read_idx(path: Path) -> np.ndarray:
    """An idx file of bytes (LeCun's format: two zeros, type 8, rank, then the sizes, big-endian), gzipped or not."""
    packed = path.with_name(path.name + ".gz")
    if not (path.is_file() or packed.is_file()):
        raise UserError(f"{packed} does not exist: give --mnist the folder of MNIST's four idx files")
    try:
        content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
        if content[:3] != b"\0\0\x08":
            raise ValueError("no idx header")
        rank = content[3]
        shape = np.frombuffer(content, ">u4", rank, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: not an idx file of bytes ({error}); download it again") from None


def _prepared(images: np.ndarray, labels: np.ndarray, largest: float) -> tuple[np.ndarray, np.ndarray]:
    images = images.reshape(len(labels), *images.shape[1:3], 1).astype(np.float32) / np.float32(largest)
    return images, labels.astype(np.int32)


def from_idx(folder: str | Path) -> Digits:
    """MNIST from its four idx files.

    Raises:
      UserError: a file is missing or is something else.
    """
    parts = [[_read_idx(Path(folder) / name) for name in FILES[split]] for split in ("train", "test")]
    for (images, labels), split in zip(parts, FILES, strict=True):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise UserError(
                f"{folder}: {split} has images {images.shape} but labels {labels.shape}; download both again"
            )
    train, test = ((images, labels) for images, labels in parts)
    return Digits("MNIST", *_prepared(*train, 255), *_prepared(*test, 255), few=100)


def from_tfds() -> Digits:
    """MNIST from TFDS, downloaded on first use.

    Raises:
      UserError: it cannot be downloaded.
    """
    import tensorflow_datasets as tfds

    try:
        parts = [tfds.as_numpy(tfds.load("mnist", split=split, batch_size=-1)) for split in ("train", "test")]
    except (OSError, tfds.download.DownloadError) as error:
        raise UserError(f"TFDS has no MNIST here ({error}): --data digits needs no download") from None
    train, test = [(part["image"], part["label"]) for part in parts]  # pyright: ignore[reportIndexIssue]
    return Digits("MNIST", *_prepared(*train, 255), *_prepared(*test, 255), few=100)


def from_sklearn() -> Digits:
    """The 1797 digits of 8x8 pixels that scikit-learn carries; a fixed 40 % of each class is the test set.

    A class has 180 images, so the few classes keep 10: about the ratio to the others that 100 gives with MNIST's 6000.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise UserError(f"--data digits {NEEDS_SKLEARN}") from None
    pixels, targets = load_digits(return_X_y=True)
    images, labels = _prepared(np.reshape(pixels, (-1, 8, 8)), np.asarray(targets), 16)
    train, test = train_test_split(np.arange(len(labels)), test_size=DIGITS_TEST_SHARE, random_state=0, stratify=labels)
    return Digits("digits", images[train], labels[train], images[test], labels[test], few=10)


def load(data: str, folder: str | None = None) -> Digits:
    """The digits of `--data`: "mnist" from `folder` or TFDS, "digits", or "auto", which falls back to digits."""
    if folder and data != "digits":
        return from_idx(folder)
    if data == "digits":
        return from_sklearn()
    try:
        return from_tfds()
    except UserError as error:
        if data == "mnist":
            raise
        _LOG.warning("%s; scikit-learn's digits instead", error)
        return from_sklearn()


def imbalanced(labels: np.ndarray, few: int, rng: np.random.Generator) -> np.ndarray:
    """Indices [M] of a training set in which each class of `FEW` keeps `few` random samples, all others everything."""
    kept = [np.flatnonzero(~np.isin(labels, FEW))]
    kept += [rng.permutation(np.flatnonzero(labels == label))[:few] for label in FEW]
    return np.sort(np.concatenate(kept))
