"""LVIS's frequency groups: their letters, names and bounds."""

GROUPS = {"r": "rare", "c": "common", "f": "frequent"}
RARE_MOST, COMMON_MOST = 10, 100  # training images of a category; a frequent one has more


def group_of(image_count: int) -> str:
    """The letter of a category that so many training images contain."""
    return "r" if image_count <= RARE_MOST else "c" if image_count <= COMMON_MOST else "f"
