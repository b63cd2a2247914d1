"""Numbers with their nouns."""

import pytest

from c2am_jax.wording import counted, noun


@pytest.mark.parametrize(
    ("number", "one", "told"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "GPU", "2 GPUs"),
        (2400, "picture", "2,400 pictures"),
        (1, "category", "1 category"),
        (3, "category", "3 categories"),
        (2, "key", "2 keys"),
        (1, "class", "1 class"),
        (1203, "class", "1,203 classes"),
        (4, "box", "4 boxes"),
    ],
)
def test_a_number_and_its_noun_agree(number, one, told):
    assert counted(number, one) == told


def test_verbs_are_given_in_both_forms():
    assert [noun(count, "is", "are") for count in (0, 1, 2)] == ["are", "is", "are"]
    assert counted(1, "value differs", "values differ") == "1 value differs"
