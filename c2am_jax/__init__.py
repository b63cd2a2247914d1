"""C2AM long-tail instance segmentation in JAX: Mask R-CNN on LVIS with the category-aware angular margin loss."""

__version__ = "0.2.0"
