"""Optimised HLO in compilers' notation, written by hand and small enough to count.

TPU: a loop of 5 (its counter goes from 2 to 7) around one whose number nobody knows, a fusion with a convolution in it,
an asynchronous copy into the vector memory, a sort without an estimate, a collective in the loop, a conditional.
GPU: calls of libraries, a convolution's gradient by its kernel and a product; a copy into another order.
"""

from pathlib import Path

TPU, GPU = (Path(__file__).with_name(f"{name}.hlo").read_text() for name in ("tpu_step", "gpu_calls"))
