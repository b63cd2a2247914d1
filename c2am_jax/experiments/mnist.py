"""The MNIST experiment (Figure 3): classes 7, 8 and 9 cut to 100 images, features of 50 dimensions.

    python -m c2am_jax.experiments.mnist [--data auto|mnist|digits] [--mnist DIR] [--seeds 5] [--out DIR]

Cross-entropy on all images, then cross-entropy, cosine softmax and C2AM on the cut set: the same small network, steps
and batches, with the package's losses. Prints test accuracy by group of classes and draws t-SNE of the test features.
"""

import argparse
import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from c2am_jax.errors import UserError, guarded
from c2am_jax.experiments import digits
from c2am_jax.experiments.digits import FEW, NEEDS_SKLEARN, NUM_CLASSES, Digits
from c2am_jax.experiments.figures import figure
from c2am_jax.losses import Classification, Head, Samples, make_classification
from c2am_jax.storage import check_output
from c2am_jax.wording import counted

FEATURES = 50
RUNS = {  # title: method, whether it sees all images
    "CE, balanced": ("softmax", True),
    "CE": ("softmax", False),
    "cosine": ("cosine", False),
    "C2AM": ("c2am", False),
}
GROUPS = {"many": [c for c in range(NUM_CLASSES) if c not in FEW], "few": list(FEW), "all": list(range(NUM_CLASSES))}
DRAWN = 1500  # test images in the t-SNE


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How all networks train; `alpha` and `scale` are the losses'."""

    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    alpha: float = 0.5
    scale: float = 30.0


class Network(nnx.Module):
    """Two strided convolutions and a layer to `FEATURES`, then the classifier; images [N, H, W, 1]."""

    def __init__(self, size: int, has_bias: bool, rngs: nnx.Rngs):
        """`size` is the side of the images in pixels."""
        self.conv1 = nnx.Conv(1, 16, (5, 5), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.fc = nnx.Linear(32 * (-(-size // 4)) ** 2, FEATURES, rngs=rngs)
        self.kernel = nnx.Param(0.01 * jax.random.normal(rngs.params(), (FEATURES, NUM_CLASSES)))
        self.bias = nnx.Param(jnp.zeros(NUM_CLASSES)) if has_bias else None

    def __call__(self, images: jax.Array) -> jax.Array:
        """Features [N, FEATURES] after ReLU, as in the detector's box head."""
        x = nnx.relu(self.conv1(images))
        x = nnx.relu(self.conv2(x))
        return nnx.relu(self.fc(x.reshape(len(x), -1)))

    def classifier(self) -> Head:
        """Kernel [FEATURES, classes] and bias."""
        return Head(self.kernel[...], None if self.bias is None else self.bias[...])


def method(name: str, recipe: Recipe) -> Classification:
    """The loss by its name in `losses.methods`; softmax has neither scale nor margin, cosine no margin.

    The last class is a digit here, not background, so C2AM's margins are for all classes.
    """
    wanted = {"softmax": (), "cosine": ("scale",), "c2am": ("scale", "alpha")}[name]
    rule = {"background": "all"} if name == "c2am" else {}
    return make_classification(name, **{key: getattr(recipe, key) for key in wanted}, **rule)


@dataclasses.dataclass(frozen=True)
class Result:
    """Accuracy in [0, 1] by class [10], weight norms [10], features of the test set [N, FEATURES]."""

    accuracy: np.ndarray
    norms: np.ndarray
    features: np.ndarray

    def group(self, name: str) -> float:
        """Mean accuracy of the classes of a group."""
        return float(self.accuracy[GROUPS[name]].mean())


class Trainer:
    """One method; compiled once for all seeds."""

    def __init__(self, name: str, recipe: Recipe, size: int):
        """`size` is the side of the images in pixels."""
        self.recipe, self.size, self.classification = recipe, size, method(name, recipe)
        rate = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
        decay = optax.add_decayed_weights(recipe.weight_decay)  # before momentum, as the detector's
        self.optimizer = optax.chain(optax.clip_by_global_norm(5.0), decay, optax.sgd(rate, recipe.momentum))

        @nnx.jit
        def step(network, optimizer, images, labels):
            def mean_loss(network):
                samples = Samples(network(images), labels, jnp.ones(len(labels)))
                state = self.classification.init_state(NUM_CLASSES - 1, FEATURES)
                loss, _ = self.classification.loss(samples, network.classifier(), state)
                return loss.mean()

            loss, gradient = nnx.value_and_grad(mean_loss)(network)
            optimizer.update(network, gradient)
            return loss

        @nnx.jit
        def predict(network, images):
            features = network(images)
            return features, self.classification.logits(features, network.classifier()).argmax(-1)

        self._step, self._predict = step, predict

    def run(self, data: Digits, balanced: bool, seed: int) -> Result:
        """Train on the whole or the cut set, test on the whole test set. Deterministic in `seed`."""
        rng = np.random.default_rng(seed)
        cut = digits.imbalanced(data.train_labels, data.few, rng)
        kept = np.arange(len(data.train_labels)) if balanced else cut
        network = Network(self.size, self.classification.classifier == "linear", nnx.Rngs(seed))
        optimizer = nnx.Optimizer(network, self.optimizer, wrt=nnx.Param)
        for _ in range(self.recipe.steps):
            chosen = rng.choice(kept, self.recipe.batch_size)
            loss = self._step(network, optimizer, data.train_images[chosen], data.train_labels[chosen])
        if not np.isfinite(float(loss)):
            raise UserError(f"the loss is {float(loss)} after {self.recipe.steps} steps: lower --learning_rate")
        features, predicted = jax.tree.map(np.asarray, self._predict(network, data.test_images))
        right = predicted == data.test_labels
        accuracy = np.array([right[data.test_labels == label].mean() for label in range(NUM_CLASSES)])
        return Result(accuracy, np.linalg.norm(np.asarray(network.kernel[...]), axis=0), features)


def experiment(data: Digits, recipe: Recipe, seeds: int, runs: Sequence[str] = tuple(RUNS)) -> dict[str, list[Result]]:
    """All runs by title, one result for each seed."""
    results = {}
    for title in runs:
        name, balanced = RUNS[title]
        trainer = Trainer(name, recipe, data.train_images.shape[1])
        results[title] = [trainer.run(data, balanced, seed) for seed in range(seeds)]
    return results


def table(results: dict[str, list[Result]]) -> str:
    """Accuracy in per cent by group, mean and deviation over seeds, and the ratio of mean norms many to few."""
    lines = [f"{'accuracy, %':14}" + "".join(f"{name:>15}" for name in GROUPS) + "   norm many/few"]
    for title, found in results.items():
        cells = [[100 * one.group(name) for one in found] for name in GROUPS]
        ratio = np.mean([one.norms[GROUPS["many"]].mean() / one.norms[GROUPS["few"]].mean() for one in found])
        row = "".join(f"{np.mean(c):8.2f} ± {np.std(c, ddof=int(len(c) > 1)):4.2f}" for c in cells)
        lines.append(f"{title:14}{row}{ratio:16.2f}")
    return "\n".join(lines)


def draw(path: Path, data: Digits, results: dict[str, list[Result]]) -> None:
    """t-SNE of the features of the first seed's network on part of the test set, a panel for each run."""
    from sklearn.manifold import TSNE

    shown = np.random.default_rng(0).permutation(len(data.test_labels))[:DRAWN]
    labels = data.test_labels[shown]
    with figure(path, 1, len(results), (3.4 * len(results), 3.8)) as axes:
        for place, (title, found) in zip(axes[0], results.items(), strict=True):
            features = found[0].features[shown]
            features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
            at = TSNE(init="pca", perplexity=30, random_state=0).fit_transform(features)
            for label in range(NUM_CLASSES):
                _scatter(place, at[labels == label], label)
            place.set(title=f"{title}: few {100 * found[0].group('few'):.1f} %", xticks=[], yticks=[])


def _scatter(axes: Any, at: np.ndarray, label: int) -> None:
    few = label in FEW
    axes.scatter(*at.T, s=7 if few else 4, color=f"C{label}", alpha=1.0 if few else 0.45, linewidths=0)
    axes.annotate(
        str(label), np.median(at, 0), weight="bold" if few else "normal", fontsize=12, ha="center", va="center"
    )


def check_packages(options: argparse.Namespace) -> None:
    """Raises UserError, before any training, if an option needs scikit-learn and it is not installed."""
    asking = ["--out, which draws t-SNE panels,"] * bool(options.out) + ["--data digits"] * (options.data == "digits")
    if asking and importlib.util.find_spec("sklearn") is None:
        raise UserError(f"{asking[0]} {NEEDS_SKLEARN}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="c2am_jax.experiments.mnist", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=("auto", "mnist", "digits"), default="auto")
    parser.add_argument("--mnist", metavar="DIR", help="folder of MNIST's idx files; default: TFDS")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", nargs="+", choices=tuple(RUNS), default=tuple(RUNS))
    parser.add_argument("--out", metavar="DIR", help="where to write mnist.json and figure3.png")
    for field in dataclasses.fields(Recipe):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    return parser.parse_args(arguments)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    options = _options(arguments)
    recipe = Recipe(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Recipe)})
    for name in ("seeds", "steps", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: at least 1")
    if options.out:
        check_output("--out", options.out, folder=True)
    check_packages(options)
    began = time.perf_counter()
    data = digits.load(options.data, options.mnist)
    results = experiment(data, recipe, options.seeds, options.runs)
    print(f"{data.name}, classes {FEW} cut to {counted(data.few, 'image')}, {counted(options.seeds, 'seed')}, {recipe}")
    print(table(results))
    print(f"trained in {time.perf_counter() - began:.0f} s")
    if options.out:
        folder = Path(options.out)
        draw(folder / "figure3.png", data, results)
        by_class = {t: [[one.accuracy.tolist(), one.norms.tolist()] for one in r] for t, r in results.items()}
        content = {"data": data.name, "recipe": dataclasses.asdict(recipe), "accuracy_and_norms": by_class}
        (folder / "mnist.json").write_text(json.dumps(content, indent=1))
        print(f"{folder / 'figure3.png'}, {folder / 'mnist.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
