"""What the compiled training step communicates, and what a dry run tells."""

import jax
import numpy as np
import pytest
from tiny import tiny_config

from c2am_jax.mesh import data_mesh
from c2am_jax.training.program import Collective, collectives, compile_step, describe

HLO = """\
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%inner (p: f32[8]) -> f32[8] {
  ROOT %g = f32[16]{0} all-gather(%p), dimensions={0}
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %c = f32[8]{0} call(%x), to_apply=%inner
}

%condition (p: (s32[], f32[8])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p0: f32[8]) -> f32[8] {
  %r = (f32[4,2]{1,0}, bf16[3]{0}) all-reduce(%a, %b), to_apply=%add
  %w = (s32[], f32[8]) while(%t), condition=%condition, body=%body
}
"""


def test_collectives_are_read_with_their_bytes_and_their_loops():
    assert collectives(HLO) == [Collective("all-gather", 64, True), Collective("all-reduce", 4 * 8 + 2 * 3, False)]


@pytest.fixture(scope="module")
def config():
    return tiny_config(train__batch_size=8, data__canvas=64, data__max_instances=4, model__backbone__norm="group_norm")


def test_the_step_on_eight_devices_only_sums_gradients_normalisers_and_metrics(config):
    compiled, parameters = compile_step(config, data_mesh(), (64, 64))
    found = collectives(compiled.as_text())
    assert {c.kind for c in found} == {"all-reduce"}
    assert not any(c.in_loop for c in found)
    # A little less than the parameters is possible: gradients that are the same sum (the last biases of a residual
    # branch and of its shortcut) travel once. Normalisers and metrics add some scalars.
    assert sum(c.bytes for c in found) == pytest.approx(4 * parameters, rel=0.05)


def test_a_dry_run_tells_size_work_memory_and_collectives(config):
    found = describe(config, data_mesh(jax.devices()[:8]))
    assert found["images_per_device"] == 1 and found["bucket"] == [64, 64]
    assert found["parameters"] > 1e5 and found["gflops_per_image"] > 0.01
    assert found["memory_gib"]["total"] > 0 and np.isfinite(found["memory_gib"]["total"])
    assert found["collectives"]["all-reduce"]["in_loop"] == 0
