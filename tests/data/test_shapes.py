"""The example set: valid, alike each time, and prepared without a loss."""

import json

from c2am_jax.data import builder
from c2am_jax.data.shapes import SPLITS, generate, main


def test_the_example_is_the_same_each_time_and_prepares_without_a_loss(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "a")]) == 0
    assert "60 train, 12 val, 12 test pictures" in capsys.readouterr().out
    generate(tmp_path / "b")
    for file in sorted((tmp_path / "a").rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
    for split, count in SPLITS.items():
        folder = tmp_path / "a"
        report = builder.prepare(folder / f"{split}.json", folder / "images", f"a_{split}", tmp_path / "d", workers=1)
        instances = len(json.loads((folder / f"{split}.json").read_text())["annotations"])
        assert (report["images"], report["instances"]) == (count, instances)
        assert not report["skipped"] and not report["noted"] and not report["suspicious"]
    assert main(["--out", str(tmp_path / "a")]) == 2
