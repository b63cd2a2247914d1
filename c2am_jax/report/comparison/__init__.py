"""Two evaluations of the same images on one page: `eval.py --report FILE --against OTHER`."""
