"""Weights of other programs: read files safely, translate their names, and fit them to a detector.

Known names: MMDetection's detectors (2.x and 3.x), torchvision's and timm's ResNets, Detectron2's ResNets and
Mask R-CNNs. Files: ``.safetensors``, ``.npz`` and ``.pth``, all without torch. Nothing is ever unpickled freely:
`weights.torch_files` reads tensors and runs nothing.
"""

import dataclasses
import functools
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from c2am_jax.errors import UserError, first_of
from c2am_jax.weights import regression
from c2am_jax.weights.names import Shapes, from_torch, torch_name, torch_shape
from c2am_jax.weights.torch_files import arrays_in, read_torch
from c2am_jax.wording import counted, noun

Arrays = dict[str, np.ndarray]

PIXELS = ("rgb", "bgr")
_listed = functools.partial(first_of, most=4, separator="; ")
SUFFIXES = (".safetensors", ".npz", ".pth", ".pt")
# What a file may hold beside a detector's weights: counters, the preprocessor's constants, ImageNet's classifier.
_IGNORED = re.compile(r"num_batches_tracked$|^data_preprocessor\.|^fc\.(weight|bias)$|cum_samples$|^pixel_(mean|std)$")
_CLASSIFIERS = re.compile(r"\.(fc_cls|fc_reg|conv_logits)\.")
_RESNET = re.compile(r"^(conv1|bn1|layer[1-4])\.")
_DETECTRON2 = re.compile(
    r"^(backbone\.bottom_up\.)?(stem|res[2-5])\.|^proposal_generator\.|^roi_heads\.|^backbone\.fpn_"
)
_DETECTRON2_NAMES = (
    (r"^backbone\.bottom_up\.", ""),
    (r"^stem\.conv1\.norm\.", "backbone.bn1."),
    (r"^stem\.conv1\.", "backbone.conv1."),
    (r"^res(\d)\.(\d+)\.shortcut\.norm\.", lambda m: f"backbone.layer{int(m[1]) - 1}.{m[2]}.downsample.1."),
    (r"^res(\d)\.(\d+)\.shortcut\.", lambda m: f"backbone.layer{int(m[1]) - 1}.{m[2]}.downsample.0."),
    (r"^res(\d)\.(\d+)\.conv(\d)\.norm\.", lambda m: f"backbone.layer{int(m[1]) - 1}.{m[2]}.bn{m[3]}."),
    (r"^res(\d)\.(\d+)\.conv(\d)\.", lambda m: f"backbone.layer{int(m[1]) - 1}.{m[2]}.conv{m[3]}."),
    (r"^backbone\.fpn_lateral(\d)\.", lambda m: f"neck.lateral_convs.{int(m[1]) - 2}.conv."),
    (r"^backbone\.fpn_output(\d)\.", lambda m: f"neck.fpn_convs.{int(m[1]) - 2}.conv."),
    (r"^proposal_generator\.rpn_head\.conv\.", "rpn_head.rpn_conv."),
    (r"^proposal_generator\.rpn_head\.objectness_logits\.", "rpn_head.rpn_cls."),
    (r"^proposal_generator\.rpn_head\.anchor_deltas\.", "rpn_head.rpn_reg."),
    (r"^roi_heads\.box_head\.fc(\d)\.", lambda m: f"roi_head.bbox_head.shared_fcs.{int(m[1]) - 1}."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "roi_head.bbox_head.fc_cls."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "roi_head.bbox_head.fc_reg."),
    (r"^roi_heads\.mask_head\.mask_fcn(\d)\.", lambda m: f"roi_head.mask_head.convs.{int(m[1]) - 1}.conv."),
    (r"^roi_heads\.mask_head\.deconv\.", "roi_head.mask_head.upsample."),
    (r"^roi_heads\.mask_head\.predictor\.", "roi_head.mask_head.conv_logits."),
)


class Weights(NamedTuple):
    """What a file holds: arrays by name, and the names of the classes if it says them, () if not."""

    arrays: Arrays
    classes: tuple[str, ...] = ()


def read_weights(path: str | Path) -> Weights:
    """The arrays of a ``.safetensors``, ``.npz`` or ``.pth``, and the class names beside them.

    MMDetection writes the names into its files: ``meta["CLASSES"]`` (2.x), ``meta["dataset_meta"]["classes"]`` (3.x).
    A ``.safetensors`` has them in its metadata as JSON, as `interop.export_torch` writes it.

    Raises:
      UserError: no such file, a broken one, one of another kind, or anything but tensors where arrays belong.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors, ".pth": _read_torch, ".pt": _read_torch}
    if path.suffix not in readers:
        raise UserError(f"{path}: weights come as {', '.join(SUFFIXES)}")
    return readers[path.suffix](path)


def _read_npz(path: Path) -> Weights:
    try:
        with np.load(path, allow_pickle=False) as file:
            return Weights(dict(file))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a file of arrays: {error}") from None


def _read_safetensors(path: Path) -> Weights:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            classes = json.loads((file.metadata() or {}).get("classes", "[]"))
            return Weights({name: file.get_tensor(name) for name in file.keys()}, _names(classes))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a file of safetensors: {error}") from None


def _read_torch(path: Path) -> Weights:
    try:
        content = read_torch(path)
        whole = content if isinstance(content, Mapping) else {}
        for key in ("state_dict", "model"):
            if key in whole and not isinstance(whole[key], str | int | float):
                content = whole[key]
                break
        if not isinstance(content, Mapping):
            raise ValueError(f"it holds a {getattr(content, 'name', type(content).__name__)}")
        return Weights(arrays_in(content), _classes_of(whole))
    except ValueError as error:
        raise UserError(
            f"{path}: not a state dict of plain tensors: {error}; nothing in it was run. Save the state_dict alone "
            "with torch.save, or convert it to .safetensors"
        ) from None


def _classes_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names that MMDetection keeps beside a state dict."""
    meta = content.get("meta")
    inner = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    for place in (meta, inner, content.get("dataset_meta")):
        if isinstance(place, Mapping):
            for key in ("CLASSES", "classes"):
                if found := _names(place.get(key)):
                    return found
    return ()


def _names(value: Any) -> tuple[str, ...]:
    """A list of texts as a tuple; () for all else."""
    plain = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return tuple(value) if plain else ()


def to_reference_names(arrays: Mapping[str, np.ndarray], *, source: str, pixels: str = "") -> Arrays:
    """The arrays under MMDetection's names, for networks that read normalised RGB pixels.

    Args:
      arrays: under the names of any program that this module knows.
      source: the file, for messages.
      pixels: what a network with Detectron2's names was trained on: "rgb" (minus the mean, over the standard deviation,
        stride in the 3x3 convolutions: converted from torchvision) or "bgr" (MSRA's models, Detectron2's default).

    Raises:
      UserError: Detectron2's names without `pixels`, or MSRA's models: they have the stride in the 1x1 convolutions, so
        the same shapes compute something else; torchvision's Mask R-CNN, whose background is the first class.
    """
    if pixels and pixels not in PIXELS:
        raise UserError(f"pixels must be one of {', '.join(PIXELS)}, not {pixels!r}")
    if pixels == "bgr":
        raise UserError(
            f"{source}: models for bgr pixels (MSRA, `caffe` style) have the stride in the 1x1 convolutions, the "
            "detectors here in the 3x3 ones: take weights of torchvision or of MMDetection's `pytorch` style"
        )
    named = {name.removeprefix("module."): value for name, value in arrays.items()}
    if any(name.startswith("backbone.body.") for name in named):
        raise UserError(f"{source}: torchvision's detectors are not supported; its ResNets are")
    if any(_DETECTRON2.search(name) for name in named):
        if not pixels:
            raise UserError(
                f"{source}: Detectron2's weights are made for bgr pixels (MSRA, its model zoo) or for rgb ones "
                "(converted from torchvision): say which with --pixels of c2am_jax.interop.import_torch"
            )
        for pattern, name in _DETECTRON2_NAMES:
            named = {re.sub(pattern, name, key): value for key, value in named.items()}
    named = {f"backbone.{n}" if _RESNET.match(n) else n: v for n, v in named.items()}
    return {name: value for name, value in named.items() if not _IGNORED.search(name)}


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Weights that fit a detector, and what does not.

    Attributes:
      arrays: under our names, in our layout.
      missing: our arrays that the source does not have; they start random.
      reset: classifiers of another class count, which start random because that was asked for.
      unexpected: names of the source that the detector does not have.
    """

    arrays: Arrays
    missing: list[str]
    reset: list[str]
    unexpected: list[str]

    def summary(self) -> str:
        """How many arrays matched, are missing and are not part of the detector, in one line."""
        reset = len(self.reset)
        extra = f", {reset} of another class count {noun(reset, 'starts', 'start')} random" if self.reset else ""
        return (
            f"{counted(len(self.arrays), 'array')} matched, "
            f"{counted(len(self.missing), 'is missing and starts', 'are missing and start')} random{extra}, "
            f"{counted(len(self.unexpected), 'is', 'are')} not part of this detector"
        )


def fit(arrays: Mapping[str, np.ndarray], shapes: Shapes, *, source: str, reset_classifier: bool = False) -> Fitted:
    """Fit arrays under MMDetection's names to a detector whose arrays have `shapes`.

    Box regression with a class-agnostic branch and without one are taken for each other (`weights.regression`).

    Args:
      arrays: from `to_reference_names`.
      shapes: by our names.
      source: the file, for messages.
      reset_classifier: let classifier, box regression and mask predictor of another class count start random.

    Raises:
      UserError: nothing fits, a shape differs (the text lists them), or the backbone is another one.
    """
    arrays = regression.like(arrays, {torch_name(name) for name in shapes})
    found, missing, reset, wrong = {}, [], [], []
    for name in sorted(shapes):
        theirs = torch_name(name)
        if theirs not in arrays:
            missing.append(name)
        elif arrays[theirs].shape != torch_shape(name, shapes):
            text = f"{theirs} {arrays[theirs].shape} instead of {torch_shape(name, shapes)}"
            if _CLASSIFIERS.search(name):
                reset.append((name, text))
            else:
                wrong.append(text)
        else:
            found[name] = np.ascontiguousarray(from_torch(name, arrays[theirs], shapes).astype(np.float32))
    unexpected = sorted(set(arrays) - {torch_name(name) for name in shapes})
    if not found:
        raise UserError(
            f"{source}: no array in it fits this detector; is it one of {', '.join(sorted(arrays)[:3])} ...?"
        )
    if wrong:
        raise UserError(f"{source}: {_listed(wrong)}: another model than the config's")
    if reset and not reset_classifier:
        raise UserError(
            f"{source}: {_listed([text for _, text in reset])}: a detector of other classes; to start these at random "
            "say --reset_classifier (in a config: train.reset_classifier=True)"
        )
    odd = _of_backbone(unexpected) or [torch_name(n) for n in _of_backbone(missing)]
    if _of_backbone(found) and odd:
        raise UserError(f"{source}: {_listed(odd)}: a backbone of another depth or kind than the config's")
    return Fitted(found, missing, [name for name, _ in reset], unexpected)


def _of_backbone(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith("backbone.")]
