"""What the published annotation files hold, to notice a truncated download or another version.

Sources: the category tables of LVIS v1.0 and v0.5 (train) as facebookresearch/Detic and tztztztztz/eql.detectron2 keep
them (instances, groups, v0.5's 56,740 images with annotations); https://www.lvisdataset.org/dataset (v1.0: 100,170
training images) and lvis-dataset/lvis-api issue 32 (19,809 validation images).
"""

from collections.abc import Mapping

_V1 = {"categories": 1203, "rare": 337, "common": 461, "frequent": 405}
_V05 = {"categories": 1230, "rare": 454, "common": 461, "frequent": 315}
PUBLISHED: Mapping[str, Mapping[str, int]] = {
    "lvis_v1_train": {"images": 100_170, "annotations": 1_270_141, **_V1},
    "lvis_v1_val": {"images": 19_809, **_V1},
    "lvis_v05_train": {"images_with_annotations": 56_740, "annotations": 693_958, **_V05},
    "lvis_v05_val": _V05,
}


def differences(name: str, counts: Mapping[str, int]) -> list[str]:
    """One line for each count of the file that is not the published one; empty for a set that is not published."""
    expected = PUBLISHED.get(name, {})
    wrong = {key: number for key, number in expected.items() if counts[key] != number}
    return [f"{key}: {counts[key]:,} in the file, {number:,} published" for key, number in wrong.items()]
