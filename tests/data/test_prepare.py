"""The command that prepares a data set."""

from c2am_jax.data import prepare


def test_the_command_reports_and_names_wrong_input(tiny, tmp_path, capsys):
    annotations, images = tiny[1]()
    options = ["--annotations", str(annotations), "--images", str(images), "--name", "t", "--out", str(tmp_path / "d")]
    assert prepare.main(options) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("t: 4 images, 4 instances")  # nothing of TFDS's own
    assert "without annotations, for evaluation only: 1 images" in printed and "1 rare, 1 common, 1 frequent" in printed
    options[1] = str(tmp_path / "none.json")
    assert prepare.main(options) == 2
    assert "none.json: no such file" in capsys.readouterr().err
