"""One self-contained page about an evaluation: numbers, charts and pictures that open without a network."""
