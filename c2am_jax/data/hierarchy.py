"""Class hierarchies of one level: which parent each class has in a tree (Forest R-CNN, Wu et al., ACM MM 2020).

The authors released trees of LVIS v0.5 only, made by hand in part. Here each tree is k-means (scipy, fixed seeds) on
what its name says:

* lexical: the words of a class's name, synset, synonyms and definition, weighted by their rarity (TF-IDF) and reduced
  to their main directions. A word net is not needed, but its hypernyms are not there either.
* geometric: means and deviations of size, aspect ratio and fill of the class's masks.
* visual: directions of the rows of a trained baseline's classifier.
"""

import re
import warnings

import numpy as np
from scipy.cluster.vq import kmeans2

from c2am_jax.data.objects import Objects

DIRECTIONS = 64
STARTS = 5  # of k-means; the tightest clusters stay


def clusters(points: np.ndarray, count: int) -> np.ndarray:
    """Cluster 0..count-1 of each point [K, F]; a function of the points alone."""
    if np.ptp(points, axis=0).max(initial=0) < 1e-9:  # all alike: any split is as good
        return np.arange(len(points)) % count
    best, chosen = np.inf, np.zeros(len(points), int)
    for seed in range(STARTS):
        rng = np.random.default_rng(seed)
        with warnings.catch_warnings(action="ignore"):  # a parent without classes harms nobody
            centres, found = kmeans2(points, count, iter=100, minit="++", rng=rng)
        spread = ((points - centres[found]) ** 2).sum()
        if spread < best:
            best, chosen = spread, found
    return chosen


def lexical_tree(texts: tuple[str, ...], count: int) -> np.ndarray:
    """Parent 0..count-1 of each class, int [K], from its text."""
    found = (re.findall(r"[a-z]+", text.lower().replace("_", " ")) for text in texts)
    words = [set(own) - {"n", "v", "a", "or", "of", "the"} for own in found]
    known = sorted(set().union(*words))
    place = {word: i for i, word in enumerate(known)}
    table = np.zeros((len(texts), len(known)))
    for row, own in enumerate(words):
        table[row, [place[word] for word in own]] = 1
    table *= np.log(len(texts) / np.maximum(table.sum(0), 1))
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    left, strength, _ = np.linalg.svd(table, full_matrices=False)
    return clusters((left * strength)[:, :DIRECTIONS], count)


def geometric_tree(found: Objects, parents: int) -> np.ndarray:
    """Parent 0..parents-1 of each class, int [K], from the shapes of its objects; one without any has the mean."""
    classes = len(found.texts)
    width, height = np.maximum(found.boxes[:, 2:], 1).T
    facts = np.stack(
        [
            np.log(np.sqrt(np.maximum(found.area, 1) / found.image_wh.prod(1))),
            np.log(width / height),
            np.clip(found.area / (width * height), 0, 1),
        ],
        1,
    )
    count = np.bincount(found.label, minlength=classes)[:, None]

    def total(x):
        return np.stack([np.bincount(found.label, column, minlength=classes) for column in x.T], 1)

    mean = np.where(count > 0, total(facts) / np.maximum(count, 1), facts.mean(0))
    deviation = np.sqrt(np.maximum(total((facts - mean[found.label]) ** 2) / np.maximum(count, 1), 0))
    unit = np.maximum(mean.std(0), 1e-9)  # of means and deviations alike
    return clusters(np.concatenate([mean / unit, deviation / unit], 1), parents)


def visual_tree(kernel: np.ndarray, count: int) -> np.ndarray:
    """Parent 0..count-1 of each class, int [K], from a baseline's classifier [D, K + 1], background last."""
    rows = kernel.T[:-1] / np.maximum(np.linalg.norm(kernel.T[:-1], axis=1, keepdims=True), 1e-12)
    return clusters(rows, count)
