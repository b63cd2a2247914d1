"""Benchmarks run, and print lines of json with what their docs name."""

import json
import sys

import jax
import pytest

from benchmarks import drift, gpu, gpu_check, methods, predict, topologies, train_step
from c2am_jax.mesh import data_mesh
from c2am_jax.models.roi_head import RoIHead
from c2am_jax.models.rpn import RPNHead


def lines(monkeypatch, capsys, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_methods(monkeypatch, capsys):
    small = ["--rois", "16", "--features", "8", "--classes", "12", "--repeats", "2", "--step_s", "0.5"]
    (line,) = lines(monkeypatch, capsys, methods.main, *small, "--methods", "eql", "gol", "fasa", "lws")
    assert list(line["ms"]) == ["softmax", "eql", "gol", "fasa", "lws"] and line["of_softmax"]["softmax"] == 1.0
    assert line["of_step_percent"]["softmax"] == 0.0 and min(line["ms"].values()) > 0


@pytest.mark.usefixtures("compile_quickly")
@pytest.mark.parametrize("benchmark", [train_step, predict])
def test_a_detector_at_work(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(RPNHead, "propose", RPNHead.propose)  # what the benchmarks replace comes back
    monkeypatch.setattr(RoIHead, "classify", RoIHead.classify)
    monkeypatch.setattr(benchmark, "data_mesh", lambda: data_mesh(jax.devices()[:1]))
    small = ["--config", "configs/glyphs_ce.py", "--size", "64", "64", "--batch", "2", "--steps", "1"]
    line = lines(monkeypatch, capsys, benchmark.main, *small)[-1]
    assert line["median_s"] > 0 and line["size"] == [64, 64]
    assert line["positive_rois"] == [2 * 12] if benchmark is train_step else line["detections"] == 2 * 100


def test_the_gpu_check_says_slow_only_where_float32_is_far_behind(monkeypatch, capsys):
    small = ["--updates", "64", "--rois", "4", "--size", "64", "64", "--repeats", "1"]
    for seconds, status in (([2e-3], 0), ([2e-1], 1)):
        given = iter([seconds, [1e-3], *[[1e-3]] * 4])
        monkeypatch.setattr(gpu_check, "seconds_of", lambda call, repeats, given=given: next(given))
        assert gpu_check.main(small) == status
        captured = capsys.readouterr()
        found = [json.loads(line) for line in captured.out.splitlines()]
        assert [line.get("check") for line in found] == [None, "scatter-add", "roi_align", "roi_align"]
        assert found[1]["slow"] == bool(status) and found[2]["largest_relative_difference"] < 1e-5
        assert ("SLOW" in captured.err) == bool(status)


def test_one_command_for_a_gpu_runs_what_fits_and_tells_the_rest(tmp_path, monkeypatch, capsys):
    small = ("--updates", "64", "--rois", "2", "--size", "32", "32", "--repeats", "1")
    planned = [
        gpu.Measurement("fit to train", "benchmarks.gpu_check", small),
        gpu.Measurement("unknown", "benchmarks.gpu_check", ("--nonsense",)),
    ]
    monkeypatch.setattr(gpu, "measurements", lambda *_: planned)
    assert gpu.main(["--out", str(tmp_path)]) == 1
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records] == [0, 2]
    assert [line.get("check") for line in records[0]["lines"]] == [None, "scatter-add", "roi_align", "roi_align"]
    page = (tmp_path / "summary.md").read_text()
    assert "device cpu" in page and "unrecognized arguments: --nonsense" in page
    capsys.readouterr()
    assert gpu.main(["--out", str(tmp_path), "--minutes", "0"]) == 1
    assert capsys.readouterr().err == "no time for: fit to train, unknown\n"


@pytest.mark.parametrize(("ratio", "verdict"), [(0.6, "0.67: met"), (0.9, "0.67: NOT met")])
def test_a_gpus_summary_compares_each_step_with_its_peer(ratio, verdict):
    line = {"benchmark": "train_step", "median_s": 0.06, "images_per_s": 33.3, "device": "H100", "jax": "0.11.2"}
    line |= {"peer_median_s": 0.1, "ratio": ratio, "temporaries_gb": 4.2}
    part = {"benchmark": "train_step_parts", "part": "backbone", "seconds": 0.01, "share": 0.4}
    record = {"name": "step, bf16", "command": "python", "status": 0, "seconds": 9, "output": [], "errors": []}
    page = gpu.summary([record | {"lines": [line, part]}])
    assert f"| step, bf16 | 33.3 | 60 | 100 | {ratio} | {verdict} | 4.2 |" in page
    assert "| backbone | 0.01 | 0.4 |" in page and "device H100, jax 0.11.2" in page


def numbers(ms):
    part = {"name": "backbone", "mcycles": ms * 1.5, "ms": ms, "share": 1.0}
    return {
        "gflops_per_image": 812.4,
        "memory_gib": {"total": 2.95, "temporaries": 2.06, "program_code": 0.51, "fits": True},
        "estimate": {"ms": ms, "images_per_s_per_device": 2e3 / ms, "by_part": [part]},
        "collectives": {"all-reduce": {"count": 5, "bytes": 201_000_000, "in_loop": 0}},
        "compile_seconds": 100.0,
    }


def test_rows_of_topologies_go_on_where_they_stopped_and_become_a_table(monkeypatch, capsys, tmp_path):
    done = []

    def compiled(name, arguments):
        done.append(name)
        failed = name.startswith("cascade_r50")
        return {"row": name} | ({"error": "error: too large"} if failed else {"numbers": numbers(100.0 + len(done))})

    monkeypatch.setattr(topologies, "compiled", compiled)
    file, document = tmp_path / "rows.jsonl", tmp_path / "page.md"
    some = [f"--out={file}", "--rows=2"]
    lines(monkeypatch, capsys, topologies.main, *some)
    file.write_text(file.read_text() + '{"row": "cut o')  # killed while it wrote
    file.write_text(file.read_text() + "\n")
    lines(monkeypatch, capsys, topologies.main, *some)
    assert done == [f"{name}, bfloat16, 2" for name in topologies.CONFIGS]
    monkeypatch.setattr(sys, "argv", ["topologies", f"--out={file}", "--plan"])
    topologies.main()
    planned = capsys.readouterr().out.splitlines()
    assert len(planned) == 4 * 2 * 2 * 3 + 4 * 2 - 4
    assert planned[0].startswith("python train.py --dry_run --topology=v5e:2x2 --config=maskrcnn_r50_c2am ")
    assert "--config.train.batch_size=4 " in planned[0] and "--program=predict" in planned[-1]

    monkeypatch.setattr(sys, "argv", ["topologies", f"--out={file}", "--plan", "--only=prediction, bfloat16"])
    topologies.main()
    planned = capsys.readouterr().out.splitlines()
    assert len(planned) == 4 and all(line.endswith("--config.eval.compute_dtype=bfloat16") for line in planned)

    document.write_text(f"before\n\n{topologies.BEGIN}\nold\n{topologies.END}\nafter\n")
    monkeypatch.setattr(sys, "argv", ["topologies", f"--out={file}", f"--table={document}"])
    topologies.main()
    text = document.read_text()
    numbers_of_row = "812 | 2.95 | 2.06 | 0.51 | yes | 101 | 19.8 | backbone 101.0 | 5, 201 MB, none in loops | 100 s"
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    assert (
        f"| maskrcnn_r50_c2am, bfloat16, 2 | {numbers_of_row} |" in text
        and "| cascade_r50_c2am, bfloat16, 2 | error: too large |" in text
    )


def write_log(folder, factor):
    folder.mkdir(parents=True)
    steps = [{"step": step, **dict.fromkeys(drift.QUANTITIES, 2.0 * factor)} for step in range(1, 21)]
    steps[-1]["loss"] *= 1.5
    lines = [*steps, {"step": 20, "segm/AP": 0.1}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_drift_is_relative_to_float32_on_one_device(tmp_path, monkeypatch, capsys):
    write_log(tmp_path / drift.REFERENCE, 1)
    write_log(tmp_path / drift.REORDERED, 1)
    write_log(tmp_path / drift.BFLOAT16, 1.25)
    *told, last = lines(monkeypatch, capsys, drift.main, "--folder", str(tmp_path), "--steps", "20")
    spans = {(line["run"], line["quantity"]): line["relative_difference_median_worst"] for line in told}
    assert spans[drift.REORDERED, "grad_norm"] == {"1-2": [0, 0], "3-10": [0, 0], "11-20": [0, 0]}
    assert spans[drift.BFLOAT16, "loss"] == {"1-2": [0.25, 0.25], "3-10": [0.25, 0.25], "11-20": [0.25, 0.25]}
    expected = {drift.REFERENCE: 2.25, drift.REORDERED: 2.25, drift.BFLOAT16: 2.8125}  # mean of 2, 2, 2, 3
    assert last["means_at_the_end"]["loss"] == pytest.approx(expected, abs=1e-4)


def test_drift_trains_what_is_missing_and_says_where_it_failed(tmp_path, monkeypatch, capsys):
    write_log(tmp_path / drift.REFERENCE, 1)
    started = []
    monkeypatch.setattr(drift, "train", lambda workdir, options, dtype, devices: started.append((dtype, devices)))
    assert drift.main(["--folder", str(tmp_path), "--steps", "20"]) == 1
    assert started == [("float32", 8)] and "float32_other_order.log" in capsys.readouterr().err
