"""Every kind of picture becomes upright RGB pixels, and what is none is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from c2am_jax.browse.files import look
from c2am_jax.data.jpeg import ImageFault, decode_jpeg
from c2am_jax.data.pictures import read_picture, stored
from c2am_jax.data.records import upright

RNG = np.random.default_rng(0)
COARSE = Image.fromarray(RNG.integers(0, 256, (4, 6, 3), np.uint8))
SMOOTH = np.asarray(COARSE.resize((48, 32), Image.Resampling.BICUBIC))
PALETTE = Image.fromarray(SMOOTH).quantize(8)


def saved(path, picture, **options):
    picture.save(path, **options)
    return path


def test_jpegs_are_decoded_as_in_training(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(SMOOTH), quality=90)
    assert (read_picture(path) == decode_jpeg(path.read_bytes()).numpy()).all()


def test_jpegs_for_eyes_are_nearly_those_of_training(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(SMOOTH), quality=90)
    exact, quick = (read_picture(path, exact=exact).astype(int) for exact in (True, False))
    assert exact.shape == quick.shape and np.abs(exact - quick).max() <= 6
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ImageFault, match="truncated"):
        read_picture(path, exact=False)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_exif_orientation_is_undone(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{kind}", Image.fromarray(SMOOTH), exif=exif)
    stored = SMOOTH.astype(int)
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: np.rot90(stored.swapaxes(0, 1), 2),
        8: np.rot90(stored),
    }[orientation]
    found = read_picture(path)
    assert found.shape == turned.shape and np.abs(found - turned).mean() < (4 if kind == "jpg" else 0.01)


def test_png_of_every_mode(tmp_path):
    grey = SMOOTH[..., 0]
    cases = {
        "rgb": (Image.fromarray(SMOOTH), SMOOTH),
        "grey": (Image.fromarray(grey), grey[..., None].repeat(3, -1)),
        "grey16": (Image.fromarray(grey.astype(np.uint16) * 257), grey[..., None].repeat(3, -1)),
        "palette": (PALETTE, np.asarray(PALETTE.convert("RGB"))),
        "black and white": (Image.fromarray(grey > 99), (grey > 99)[..., None].repeat(3, -1) * 255),
    }
    for name, (picture, expected) in cases.items():
        found = read_picture(saved(tmp_path / f"{name}.png", picture))
        assert found.dtype == np.uint8 and (found == expected).all(), name


def test_transparency_is_laid_on_white(tmp_path):
    alpha = np.zeros((32, 48, 1), np.uint8)
    alpha[:, 24:] = 255
    found = read_picture(saved(tmp_path / "a.png", Image.fromarray(np.concatenate([SMOOTH, alpha], -1))))
    assert (found[:, :24] == 255).all() and (found[:, 24:] == SMOOTH[:, 24:]).all()


def test_what_is_no_usable_picture_is_refused_by_name(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(stream, "PNG")
    jpeg = saved(tmp_path / "whole.jpg", Image.fromarray(SMOOTH)).read_bytes()
    for content, words in [
        (b"", "not an image"),
        (b"hello", "not an image"),
        (stream.getvalue()[:3000], "truncated"),
        (jpeg[: len(jpeg) // 2], "truncated"),
    ]:
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ImageFault, match=words):
            read_picture(tmp_path / "bad")


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    path = saved(tmp_path / "a.png", Image.new("1", (10_000, 6_000)))
    with pytest.raises(ImageFault, match="megapixels"):
        read_picture(path)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_pictures_that_are_no_jpegs_are_stored_without_a_loss(tmp_path, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    path = saved(tmp_path / "a", Image.fromarray(SMOOTH), format=kind, **options)
    found = stored(path.read_bytes(), (32, 48))
    assert (decode_jpeg(found.content).numpy() == SMOOTH).all() and found.orientation == 1
    assert found.notes == [f"picture of the format {kind}, stored as PNG"]


def test_16_bits_and_transparency_train_as_they_are_shown(tmp_path):
    grey = SMOOTH[..., 0]
    alpha = np.concatenate([SMOOTH, (SMOOTH[..., :1] > 99) * np.uint8(255)], -1)
    for name, picture in (("g.png", Image.fromarray(grey.astype(np.uint16) * 257)), ("a.png", Image.fromarray(alpha))):
        path = saved(tmp_path / name, picture)
        found = decode_jpeg(stored(path.read_bytes(), (32, 48)).content).numpy()
        assert (found == read_picture(path)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_training_and_predict_see_the_same_upright_pixels(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{kind}", Image.fromarray(SMOOTH), exif=exif)
    pixels = read_picture(path)
    found = stored(path.read_bytes(), pixels.shape[:2])
    assert (upright(decode_jpeg(found.content), np.int64(found.orientation)).numpy() == pixels).all()
    assert bool(found.notes) == (orientation != 1 or kind == "tif")


def test_a_picture_is_read_as_its_json_sees_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.png", Image.fromarray(SMOOTH), exif=exif)
    assert (read_picture(path, hw=(32, 48)) == SMOOTH).all()  # annotated as it is stored
    assert (read_picture(path, hw=(48, 32)) == np.rot90(SMOOTH, -1)).all()
    with pytest.raises(ImageFault, match="has height 48 and width 32, the json says height 9 and width 9"):
        read_picture(path, hw=(9, 9))


def test_a_picture_of_another_size_is_refused(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(SMOOTH))
    with pytest.raises(ImageFault, match="has height 32 and width 48, the json says height 48 and width 32") as error:
        stored(path.read_bytes(), (48, 32))
    assert error.value.reason == "image of another size"


def test_16_bits_are_scaled_and_32_bits_are_refused_by_all(tmp_path):
    grey = np.arange(83, 167, dtype=np.int32).reshape(7, 12)
    wide = grey.astype(np.uint16) * 257
    for name in ("a.png", "a.tif", "a.pgm"):
        path = saved(tmp_path / name, Image.fromarray(wide))
        assert (read_picture(path) == grey[..., None]).all(), name
        assert (decode_jpeg(stored(path.read_bytes(), (7, 12)).content).numpy() == grey[..., None]).all(), name
    for name, numbers in (("i.tif", grey), ("f.tif", grey / np.float32(255)), ("f.pfm", grey / np.float32(255))):
        path = saved(tmp_path / name, Image.fromarray(numbers))
        for read in (read_picture, look, lambda path: stored(path.read_bytes(), (7, 12))):
            with pytest.raises(ImageFault, match="has grey values of 32 bits, whose white is not known") as error:
                read(path)
            assert error.value.reason == "image of 32 bits"
