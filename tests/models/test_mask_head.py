"""The mask predictors against direct formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from c2am_jax.models.architecture import MaskHeadSettings
from c2am_jax.models.mask_head import MaskHead, MaskPredictor, NormedMaskPredictor

RNG = np.random.default_rng(0)
PIXELS = np.maximum(RNG.standard_normal((3, 4, 5, 6)), 0).astype(np.float32)
LABELS = np.array([0, 2, 6])


def weights_of(predictor):
    predictor.bias[...] = jnp.asarray(RNG.standard_normal(predictor.bias.shape), jnp.float32)
    return np.asarray(predictor.kernel[...], np.float64), np.asarray(predictor.bias[...], np.float64)


def test_normed_predictor_is_the_scaled_cosine_of_the_labels_class():
    predictor = NormedMaskPredictor(6, 7, temperature=20.0, rngs=nnx.Rngs(0))
    kernel, bias = weights_of(predictor)
    pixels = PIXELS.astype(np.float64)
    pixels /= np.linalg.norm(pixels, axis=-1, keepdims=True) + 1e-6
    rows = kernel / (np.linalg.norm(kernel, axis=-1, keepdims=True) + 1e-6)
    everything = 20 * np.einsum("nhwc,kc->nhwk", pixels, rows) + bias
    expected = np.stack([everything[i, ..., label] for i, label in enumerate(LABELS)])
    found = jax.jit(lambda x, labels: predictor(x, labels))(PIXELS, LABELS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # The length of neither matters, but for 1e-6.
    np.testing.assert_allclose(predictor(jnp.asarray(100 * PIXELS), LABELS), found, rtol=1e-3, atol=1e-3)


def test_plain_predictor_is_the_1x1_convolution_of_the_labels_class():
    predictor = MaskPredictor(6, 7, rngs=nnx.Rngs(0))
    kernel, bias = weights_of(predictor)
    expected = np.stack([PIXELS[i] @ kernel[label] + bias[label] for i, label in enumerate(LABELS)])
    np.testing.assert_allclose(predictor(jnp.asarray(PIXELS), LABELS), expected, rtol=1e-4, atol=1e-5)


def test_pixels_without_any_feature_have_finite_gradients():
    predictor = NormedMaskPredictor(6, 7, temperature=20.0, rngs=nnx.Rngs(0))
    gradient = jax.grad(lambda x: predictor(x, LABELS).sum())(jnp.zeros_like(PIXELS))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("agnostic", [False, True])
def test_the_switch_changes_the_predictor_only(agnostic):
    settings = MaskHeadSettings(convs=1, channels=8, class_agnostic=agnostic)
    normed = dataclasses.replace(settings, predictor="normed")
    plain, other = (MaskHead(4, 5, chosen, rngs=nnx.Rngs(0)) for chosen in (settings, normed))
    pooled, labels = jax.random.normal(jax.random.key(0), (2, 7, 7, 4)), jnp.array([1, 4])
    np.testing.assert_array_equal(plain.hidden(pooled), other.hidden(pooled))
    assert jax.tree.map(jnp.shape, nnx.state(plain)) == jax.tree.map(jnp.shape, nnx.state(other))
    logits = other(pooled.astype(jnp.bfloat16), labels)
    assert logits.dtype == jnp.float32 and float(jnp.abs(logits).max()) <= 20 + 1e-3


def test_an_unknown_predictor_is_named():
    with pytest.raises(ValueError, match="predictor=.*must be one of plain, normed"):
        MaskHeadSettings(predictor="cosine")


def test_classes_of_one_geometric_parent_share_a_mask_channel():
    settings = MaskHeadSettings(convs=1, channels=8, geometric=True)
    parents = np.array([0, 1, 1, 0, 2, 2, 0, 1, 2, 0, 1, 2])
    head = MaskHead(4, 12, settings, class_channel=parents, rngs=nnx.Rngs(0))
    assert head.conv_logits.kernel.shape == (3, 8)
    pooled = jnp.asarray(np.random.default_rng(0).standard_normal((13, 6, 6, 4)), jnp.float32)
    pooled = jnp.broadcast_to(pooled[:1], pooled.shape)
    logits = np.asarray(head(pooled, jnp.arange(13)))  # the last is background: any channel
    for a in range(12):
        for b in range(12):
            assert np.array_equal(logits[a], logits[b]) == (parents[a] == parents[b])
    with pytest.raises(ValueError, match="geometric=True: must be False where class_agnostic=True"):
        MaskHeadSettings(class_agnostic=True, geometric=True)
