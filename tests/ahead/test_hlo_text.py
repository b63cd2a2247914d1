"""The parser of optimised HLO, and what is read from hand-written modules: loops, time, memory, communication."""

import hlo
import pytest

from c2am_jax.ahead import buffers, time_estimate, traffic
from c2am_jax.ahead.communication import Collective, by_kind, collectives
from c2am_jax.ahead.compiled import watched
from c2am_jax.ahead.executions import ASSUMED_TRIPS, executions, trip_count
from c2am_jax.ahead.hlo_text import parse, shapes
from c2am_jax.ahead.work import instruction_flops


@pytest.fixture(scope="module")
def module():
    return parse(hlo.TPU)


def test_instructions_have_shapes_operands_places_and_what_they_run(module):
    assert module.entry == "main" and module.is_scheduled
    assert set(module.computations) >= {"add", "fused_convolution", "body", "condition", "settle", "cheap", "dear"}
    loop = module.main.instructions["while.1"]
    assert loop.opcode == "while" and loop.operands == ("start",) and loop.op_name == "jit(step)/jvp(proposals)/while"
    assert (loop.called("body"), loop.called("condition")) == (["body"], ["condition"])
    assert [str(shape) for shape in loop.shapes] == ["s32[]", "bf16[2,16,16,32]", "f32[64,8]"]
    chosen = module.main.root
    assert chosen.name == "chosen" and chosen.called() == ["cheap", "dear"]
    fusion = module.main.instructions["fusion.1"]
    assert fusion.cycles == 2000 and module.main.operand(fusion, 0).name == "narrow"
    assert "settle" in module.reached(["body"]) and "dear" not in module.reached(["body"])


def test_no_hlo_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("module @jit_step {}")


@pytest.mark.parametrize(
    ("text", "size", "padded", "space"),
    [
        ("f32[268569,4]{1,0:T(8,128)}", 268569 * 16, 268576 * 128 * 4, 0),  # 4 coordinates take 128 lanes
        ("f32[268569,4]{0,1:T(4,128)}", 268569 * 16, 4 * 268672 * 4, 0),  # and few more bytes the other way round
        ("bf16[2,35,30,8]{3,2,1,0:T(8,128)(2,1)}", 2 * 35 * 30 * 16, 2 * 35 * 32 * 128 * 2, 0),
        ("f32[1023]{0:T(1024)S(1)}", 4092, 4096, 1),
        ("pred[3,5]{1,0:T(4,128)(4,1)}", 15, 512, 0),
        ("f32[7,3]{1,0}", 84, 84, 0),
        ("s32[]{:T(128)}", 4, 512, 0),
        ("s4[3]{0:E(4)}", 2, 2, 0),
        ("f8e4m3fn[10]", 10, 10, 0),
    ],
)
def test_sizes_with_and_without_the_padding_of_tiles(text, size, padded, space):
    (shape,) = shapes(text)
    assert (shape.size, shape.padded_size, shape.space) == (size, padded, space)


def test_iterations_follow_from_counter_limit_and_first_value_or_are_not_known(module):
    def of(text, name="main", loop="while.1"):
        found = parse(text)
        computation = found.computations[name]
        return trip_count(found, computation, computation.instructions[loop])

    assert of(hlo.TPU) == 5
    assert of(hlo.TPU, "body", "settled") is None
    assert of(hlo.TPU.replace("direction=LT", "direction=LE")) == 6
    assert of(hlo.TPU.replace("constant(1)", "constant(2)")) == 3
    assert of(hlo.TPU.replace("direction=LT", "direction=NE")) is None
    written = 'body=%body, backend_config={"known_trip_count":{"n":"12"}}'
    assert of(hlo.TPU.replace("body=%body", written)) == 12


def test_what_runs_counts_its_loops_and_the_dearer_branch(module):
    times = {e.instruction.name: e.times for e in executions(module, cost, inside_fusions=False)}
    assert times["fusion.1"] == 1 and times["copy.7"] == 5 and times["step"] == 5 * ASSUMED_TRIPS
    assert times["e"] == 1 and "c" not in times and "conv" not in times
    inside = {e.instruction.name: e.times for e in executions(module, cost, inside_fusions=True)}
    assert inside["conv"] == 1


def cost(computation, instruction):
    return (instruction.cycles or 0) + instruction_flops(computation, instruction)


def test_cycles_are_added_by_part_and_kind_and_what_has_none_is_listed(module):
    found = time_estimate.estimate(module)
    assert found.cycles == 50 + 2000 + 5 * 100 + 5 * ASSUMED_TRIPS * 10 + 1000
    assert found.by_part == {"backbone": 2050, "mask_head backward": 1000, "proposals": 500 + 50 * ASSUMED_TRIPS}
    assert found.by_kind == {"convolution": 2000, "elementwise": 1000 + 50 * ASSUMED_TRIPS, "copy": 50 + 500}
    assert [(loop["trips"], loop["known"]) for loop in found.loops] == [(5, True), (ASSUMED_TRIPS, False)]
    rows = time_estimate.uncounted(module, executions(module, cost, inside_fusions=False))
    told = {row["opcode"]: row for row in rows}
    assert told["sort"] == {
        "opcode": "sort",
        "part": "anchor_sampling",
        "count": 1,
        "times": 1,
        "shape": "f32[64,8]",
        "mb": 0.002,
    }
    assert told["all-reduce"]["times"] == 5 and rows[0]["opcode"] in ("sort", "all-reduce")
    gpu = parse(hlo.GPU)
    assert time_estimate.estimate(gpu) is None
    image, filters, product = 16 * 512 * 512 * 4, 16 * 16 * 9 * 4, 4 * (64 * 32 + 32 * 8 + 64 * 8)
    moved = 2 * image + filters + 2 * image + product + product + 4194304  # the library's workspace too
    rows = traffic.by_part(executions(gpu, cost, inside_fusions=False))
    assert rows == [{"part": "other", "kernels": 4, "gb": round(moved / 1e9, 6)}]
    loop = {row["part"]: row["kernels"] for row in traffic.by_part(executions(module, cost, inside_fusions=False))}
    assert loop["proposals"] > 5 * ASSUMED_TRIPS


def test_buffers_are_those_in_main_memory_with_their_padding_and_lifetime(module, monkeypatch):
    monkeypatch.setattr(buffers, "LEAST", 1)
    found = {b.instruction.name: b for b in buffers.buffers(module)}
    assert {"narrow", "fusion.1", "sorted"} <= set(found)
    assert not {"copy-start", "copy-done", "while.1", "image"} & set(found)
    assert found["narrow"].size == 2 * 16 * 16 * 128 * 2 and found["narrow"].values == 2 * 16 * 16 * 8 * 2
    assert found["narrow"].last < found["sorted"].born <= found["fusion.1"].last + 2  # the loop's values live on in it
    peak = buffers.at_peak(list(found.values()))
    assert [b.instruction.name for b in peak][:2] == ["narrow", "fusion.1"] or len(peak) >= 2
    assert buffers.largest(list(found.values()))[0].row()["opcode"] in ("convert", "fusion")


def test_collectives_are_read_with_their_bytes_and_their_loops(module):
    assert collectives(module) == [Collective("all-reduce", 64 * 8 * 4, True)]
    outside = """\
HloModule m
ENTRY %main (p0: f32[8]) -> f32[8] {
  %r = (f32[4,2]{1,0}, bf16[3]{0}) all-reduce(%a, %b), to_apply=%add
  %s = (f32[2]{0}, f32[8]{0}) all-gather-start(%a), dimensions={0}
  %t = f32[8]{0} all-gather-done(%s)
  %u = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%a)
  %v = (f32[8]{0}, f32[2]{0}) all-reduce-start(%a, %b), to_apply=%add
  ROOT %w = ((f32[6]{0}, s32[]), (f32[6]{0}, s32[])) all-reduce-start(%a, %b), to_apply=%add
}
"""
    found = collectives(parse(outside))
    assert by_kind(found) == {
        "all-reduce": {"count": 3, "bytes": 4 * 8 + 2 * 3 + 40 + 28, "in_loop": 0},
        "all-gather": {"count": 1, "bytes": 32, "in_loop": 0},
        "collective-permute": {"count": 1, "bytes": 32, "in_loop": 0},
    }


def test_what_costs_more_than_it_looks_is_counted(module):
    assert watched(parse(hlo.GPU)) == {
        "float32_convolutions": 1,
        "float32_products": 2,
        "layout_copies": 1,
        "scatters": 0,
        "scatter_loops": 0,
    }
    assert watched(module)["float32_convolutions"] == 0
