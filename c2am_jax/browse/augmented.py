"""Pictures as training sees them: prepared into a temporary folder and sent through the training pipeline."""

import contextlib
import dataclasses
import itertools
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from c2am_jax.browse.paint import Drawing, painted
from c2am_jax.browse.survey import Survey
from c2am_jax.data.settings import DataSettings
from c2am_jax.errors import UserError
from c2am_jax.evaluation.encoding import paste
from c2am_jax.structures import Batch
from c2am_jax.wording import noun

NAME = "browse_train"


def augmented_drawings(survey: Survey, places: Sequence[int], settings: DataSettings) -> dict[int, Drawing]:
    """The drawing of each picture that trains, by image id; each as one random draw of the settings shows it.

    Args:
      survey: of the json.
      places: of the pictures in it; objects that are pasted come from these too.
      settings: what is drawn from, and the sizes.

    Raises:
      UserError: not one of the pictures can train.
      WrongSetting: settings that do not go with the pictures.
    """
    # TensorFlow takes seconds to import, and the page without these drawings does without it
    from c2am_jax.data.builder import prepare
    from c2am_jax.data.pipeline import epoch_length, train_batches
    from c2am_jax.data.prepared import load
    from c2am_jax.data.sampler import trainable

    names = survey.scan.categories.names
    with tempfile.TemporaryDirectory() as folder, _quiet():
        part = Path(folder) / "part.json"
        part.write_text(_part(survey, places))
        prepare(part, survey.folder, NAME, folder, workers=1)
        dataset = load(NAME, folder)
        if not len(trainable(dataset.image_hw, dataset.label_offset)):
            shown = f"{survey.scan.name}: not one of the {len(places)} shown {noun(len(places), 'picture')} can train"
            raise UserError(f"{shown}; the page without --augmented says why")
        own = dataclasses.replace(settings, sampler="random", held_out=0.0)
        batches = train_batches(dataset, own, batch_size=1, seed=0)
        seen = itertools.islice(batches, epoch_length(dataset, own, 1))
        return {int(batch.image_id[0]): _drawing(batch, names) for _, batch in seen}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of the data's way: what is left out stands in the page."""
    logger = logging.getLogger("c2am_jax.data")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _part(survey: Survey, places: Sequence[int]) -> str:
    """The json of these pictures alone."""
    truths = survey.truths
    rows = np.flatnonzero(np.isin(truths.image, places))
    with open(survey.scan.path, "rb") as file:
        annotations = []
        for row in rows:
            file.seek(int(truths.offset[row]))
            annotations.append(json.loads(file.read(int(truths.length[row]))))
    images = [survey.scan.images[place]._asdict() for place in places]
    categories = survey.scan.categories.as_dicts()
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def _drawing(batch: Batch, names: Sequence[str]) -> Drawing:
    """What the device makes of the one picture of a batch: resized, then mirrored if the draw says so."""
    source_h, source_w = (int(side) for side in batch.source_hw[0])
    height, width = (int(side) for side in batch.target_hw[0])
    picture = Image.fromarray(np.asarray(batch.image[0])[:source_h, :source_w])
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    valid = np.asarray(batch.valid[0])
    boxes = np.asarray(batch.boxes[0])[valid] * np.array([width / source_w, height / source_h] * 2)
    frames = np.unpackbits(np.asarray(batch.masks[0])[valid], axis=-1)
    if batch.flip[0]:
        pixels, frames = pixels[:, ::-1], frames[..., ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    masks = []
    for frame, box in zip(frames, boxes, strict=True):
        region, (top, left) = paste(frame, box, (height, width))
        mask = np.zeros((height, width), bool)
        mask[top : top + region.shape[0], left : left + region.shape[1]] = region
        masks.append(mask)
    return painted(pixels, boxes, np.asarray(batch.labels[0])[valid].tolist(), masks, names)
