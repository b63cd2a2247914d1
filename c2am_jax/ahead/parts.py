"""Parts of the detector that instructions belong to, by the named scopes in the program's text."""

import re

# `jax.named_scope`s of models/, mesh.py and training/step.py; of nested ones the innermost counts.
PARTS = (
    "preprocess backbone neck rpn proposals anchor_sampling rpn_loss roi_sampling roi_align box_head classification "
    "box_regression mask_targets mask_head nms optimizer"
).split()
OTHER = "other"
_PART = re.compile(rf"\b({'|'.join(PARTS)})\b")


def part_of(op_name: str) -> str:
    """The innermost part of an instruction's path of scopes, with " backward" behind a transposed one."""
    found = _PART.findall(op_name)
    name = found[-1] if found else OTHER
    return f"{name} backward" if "transpose(" in op_name else name
