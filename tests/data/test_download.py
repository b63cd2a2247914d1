"""Published data sets come whole to where training looks for them, whatever the connection does, or a line says why."""

import errno
import hashlib
import io
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from loopback import Site

from c2am_jax import config, downloads
from c2am_jax.data import archives, datasets, download, unpack
from c2am_jax.data.settings import DataSettings

ROOT = Path(__file__).resolve().parents[2]
SETS = ("lvis_v1", "lvis_v05", "coco")


def zip_of(files):
    """Bytes of a zip with these contents by name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return stream.getvalue()


class Web:
    """All archives of the table, with a tiny content, on a server; `run` is the command."""

    def __init__(self, site, address, folder, monkeypatch, capsys):
        self.site, self.address, self.capsys = site, address, capsys
        self.data, self.table = folder / "data", folder / "mirror.toml"
        monkeypatch.setenv("C2AM_DATA_SOURCES", str(self.table))
        self.say()

    def say(self, **changes):
        """Write the table; `changes` are keys of all archives."""
        lines = []
        for path, content in self.site.files.items():
            pictures = {"/train2017.zip": 4, "/val2017.zip": 1}.get(path, 0)
            entry = {"url": self.address + path, "size": len(content), "pictures": pictures}
            entry |= {"sha256": hashlib.sha256(content).hexdigest()} | changes
            lines += [f'[archives."{path[1:]}"]', *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
        self.table.write_text("\n".join(lines))

    def run(self, *arguments):
        """(status, lines of stdout, lines of stderr)."""
        status = download.main([*arguments, "--out", str(self.data)])
        printed = self.capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    def fails(self, *arguments):
        """The one line of a command that ends with status 2."""
        status, _, err = self.run(*arguments)
        assert status == 2 and len(err) == 1 and err[0].startswith("error: "), err
        return err[0]

    @property
    def asked(self):
        """Names of the archives that were asked for, in order."""
        return [path[1:] for path, _ in self.site.requests]

    @property
    def files(self):
        """All that is in the folder of data sets, links not followed."""
        return {str(path.relative_to(self.data)) for path in self.data.rglob("*") if path.is_file()}


@pytest.fixture
def web(tiny, tmp_path, monkeypatch, capsys):
    content, write = tiny
    pictures = {f"train2017/{file.name}": file.read_bytes() for file in write()[1].rglob("*.jpg")}
    validation = {**content, "images": content["images"][:1], "annotations": content["annotations"][:2]}
    train, val = json.dumps(content), json.dumps(validation)
    found = {
        "lvis_v1_train.json.zip": {"lvis_v1_train.json": train},
        "lvis_v1_val.json.zip": {"lvis_v1_val.json": val},
        "lvis_v0.5_train.json.zip": {"lvis_v0.5_train.json": train},
        "lvis_v0.5_val.json.zip": {"lvis_v0.5_val.json": val},
        "annotations_trainval2017.zip": {
            "annotations/captions_train2017.json": "{}",
            "annotations/instances_train2017.json": train,
            "annotations/instances_val2017.json": val,
        },
        "train2017.zip": {"train2017/": "", **pictures},
        "val2017.zip": {f"val2017/{1:012d}.jpg": next(iter(pictures.values()))},
    }
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloads, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(downloads, "_BLOCK", 100)
    site = Site({f"/{name}": zip_of(files) for name, files in found.items()})
    with site.served() as address:
        yield Web(site, address, tmp_path, monkeypatch, capsys)


def test_lvis_is_two_commands(web):
    status, out, _ = web.run("lvis_v1")
    assert status == 0
    assert out[-1] == f"train with: python -m c2am_jax.train --config maskrcnn_r50_c2am --config.data.dir={web.data}"
    data = DataSettings("lvis_v1", str(web.data))
    assert len(datasets.open_dataset(data, "train")) == 4 and len(datasets.open_dataset(data, "val")) == 1
    assert {line.partition(" MB from ")[0] for line in out if " from " in line} == {f"{name}: 0" for name in web.asked}


def test_a_second_run_fetches_nothing_and_says_so(web):
    web.run("lvis_v1")
    asked, files = len(web.asked), web.files
    status, out, _ = web.run("lvis_v1")
    assert status == 0 and len(web.asked) == asked and web.files == files
    assert sum(line.endswith(" is there") for line in out) == 4 and "train with: " in out[-1]
    assert not [file for file in files if file.endswith((".zip", ".partial", ".unpacking"))]


def test_the_three_data_sets_share_the_pictures(web, tmp_path):
    for name in SETS:
        assert web.run(name)[0] == 0
    assert web.asked.count("train2017.zip") == web.asked.count("val2017.zip") == 1
    moved = web.data.rename(tmp_path / "moved")  # the links are relative
    for name in SETS:
        for split in ("train", "val"):
            annotations, images = datasets.sources(DataSettings(name, str(moved)), split)
            datasets.check_sources(name, annotations, images, split)
            assert len(list((images / "train2017").iterdir())) == 4


@pytest.mark.parametrize("name", SETS)
def test_what_the_last_line_says_is_an_experiment_on_these_data(name):
    _, argument, *overrides = download.TRAINING[name].split()
    changes = [text.removeprefix("--") for text in overrides if text.startswith("--config.")]
    experiment = config.with_overrides(config.load_experiment(argument), config.parse_overrides(changes))
    assert experiment.data.name == name
    classes = {"lvis_v1": 1203, "lvis_v05": 1230, "coco": 80}  # COCO has 80 categories
    assert experiment.model.num_classes == classes[name]


def test_a_download_that_is_cut_off_three_times_goes_on(web, caplog):
    web.site.cut = [500, 300, 200]
    assert web.run("coco", "--split", "train")[0] == 0
    name = web.asked[0]
    assert web.asked[:4] == [name] * 4 and web.asked.count(name) == 4
    assert [headers.get("Range") for _, headers in web.site.requests[:4]] == [
        None,
        "bytes=500-",
        "bytes=800-",
        "bytes=1000-",
    ]
    assert caplog.text.count("trying again in 0 s") == 3


def test_one_that_is_cut_off_for_good_goes_on_in_the_next_run(web):
    web.site.cut = [200] * 4
    line = web.fails("coco", "--split", "train")
    assert "cut off after 800 of " in line and "4 times; run the same command again to resume from there" in line
    assert web.run("coco", "--split", "train")[0] == 0
    assert web.site.requests[4][1]["Range"] == "bytes=800-"


def test_a_connection_that_is_gone_after_a_cut_is_tried_again(web, monkeypatch):
    web.site.cut, opener, answers = [500], downloads._opener, iter([True, False, True])

    def gone(redirects):
        if next(answers, True):
            return opener(redirects)
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(downloads, "_opener", gone)
    assert web.run("coco", "--split", "train", "--annotations_only")[0] == 0


def test_a_large_part_makes_a_try_worth_while(web, monkeypatch):
    monkeypatch.setattr(downloads, "WORTH", 150)
    web.site.cut = [150] * 5
    assert web.run("coco", "--split", "train")[0] == 0


def test_a_file_of_another_size_is_refused_before_it_is_fetched(web, monkeypatch):
    web.say(size=10**6)
    monkeypatch.setattr(downloads, "_next_block", None)
    line = web.fails("lvis_v1", "--annotations_only")
    assert re.search(r"the file there has \d+ bytes instead of 1000000\. Or get it on another machine", line)
    assert web.files == set()


def test_a_file_with_another_checksum_is_refused_and_deleted(web):
    web.say(sha256="0" * 64)
    line = web.fails("lvis_v1", "--annotations_only")
    assert re.search(rf"the file has the SHA-256 [0-9a-f]{{64}} instead of {'0' * 64}\.", line)
    assert web.files == set()


def test_a_disk_without_room_is_one_line_before_the_download(web, monkeypatch):
    usage = shutil.disk_usage
    packed = sum(len(content) for content in web.site.files.values())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(folder)._replace(free=packed))
    line = web.fails("lvis_v1")  # the archives alone would fit
    assert re.search(r"data: lvis_v1 needs 0\.0 GB more there, .* 0\.0 GB are free: free some space, or .* --out", line)
    assert not web.asked and web.files == set()


def test_the_room_that_is_asked_for_is_that_of_the_largest_moment(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("C2AM_DATA_SOURCES", raising=False)
    usage = shutil.disk_usage
    needed = {}
    for name in (*SETS, "coco --annotations_only", "lvis_v1 --keep_archives"):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(folder)._replace(free=10))
        assert download.main([*name.split(), "--out", str(tmp_path)]) == 2
        needed[name] = float(re.search(r"needs ([\d.]+) GB", capsys.readouterr().err)[1])
    assert needed == {
        "lvis_v1": 40.5,
        "lvis_v05": 40.3,
        "coco": 40.3,
        "coco --annotations_only": 1.3,
        "lvis_v1 --keep_archives": 43.0,
    }


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_is_one_line_and_nothing_half_unpacked(web, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(downloads.Counter, "update", full)
        line = web.fails("lvis_v1")
    assert "data: the disk is full (No space left on device): free some space and run the same command again" in line
    copy, copied = unpack._copy, []

    def third_is_too_much(zipped, info, place, *rest):
        copied.append(place)
        if len(copied) == 3:
            place.write_bytes(b"half")
            full()
        copy(zipped, info, place, *rest)

    monkeypatch.setattr(unpack, "_copy", third_is_too_much)
    assert "the disk is full" in web.fails("lvis_v1")
    folder = web.data / "coco" / "images"
    assert not (folder / "train2017").exists() and len(list((folder / "train2017.unpacking").iterdir())) == 2
    assert not (web.data / "lvis_v1").exists()  # so that training does not start yet
    assert web.run("lvis_v1")[0] == 0
    assert len(copied) == 3 + 3 + 2  # of four pictures the whole one is kept; then the two json files


def test_a_json_that_does_not_fit_leaves_nothing(web, monkeypatch):
    monkeypatch.setattr(unpack.Counter, "update", lambda self, count: full() if "unpack" in self._what else None)
    assert "the disk is full" in web.fails("lvis_v1", "--annotations_only")
    assert [file for file in web.files if "json" in file and not file.endswith(".zip")] == []


def test_a_killed_unpacking_goes_on(web):
    script = f"""
import os, signal, sys
from c2am_jax.data import download, unpack
copy, count = unpack._copy, 0
def killed(zipped, info, place, *rest):
    global count
    count += 1
    if count == 4:  # one of val2017 comes first
        place.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    copy(zipped, info, place, *rest)
unpack._copy = killed
sys.exit(download.main(["coco", "--out", {str(web.data)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert done.returncode == -9, done.stderr
    folder = web.data / "coco" / "images"
    assert (folder / "val2017").is_dir() and not (folder / "train2017").exists()
    assert len(list((folder / "train2017.unpacking").iterdir())) == 3
    asked = len(web.asked)
    assert web.run("coco")[0] == 0 and web.asked[asked:] == []  # the archives were kept
    with zipfile.ZipFile(io.BytesIO(web.site.files["/train2017.zip"])) as zipped:
        for info in zipped.infolist():
            assert info.is_dir() or (folder / info.filename).read_bytes() == zipped.read(info)
    assert not list(web.data.rglob("*.unpacking")) and not (web.data / "archives").exists()


def test_control_c_is_one_line_and_the_same_command_goes_on(web, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(unpack, "_copy", interrupted)
        status, _, err = web.run("lvis_v1")
    assert status == 130 and [line for line in err if line] == ["interrupted: run the same command again to resume"]
    assert web.run("lvis_v1")[0] == 0 and web.asked.count("train2017.zip") == 1


def test_pictures_that_are_there_are_not_fetched(web, tiny, tmp_path):
    images = tiny[1]()[1]
    line = web.fails("lvis_v1", "--images", str(images))
    assert f"--images {images}: no folder {images / 'val2017'} there; without --images it is downloaded" in line
    assert not web.asked
    (images / "val2017").mkdir()
    shutil.copy(images / "train2017" / f"{1:012d}.jpg", images / "val2017")
    assert web.run("lvis_v1", "--images", str(images))[0] == 0
    assert set(web.asked) == {"lvis_v1_train.json.zip", "lvis_v1_val.json.zip"}
    data = DataSettings("lvis_v1", str(web.data))
    assert datasets.sources(data, "train")[1].samefile(images) and len(datasets.open_dataset(data, "train")) == 4
    assert web.run("coco")[0] == 0 and web.asked[2:] == ["annotations_trainval2017.zip"]
    (tmp_path / "others").mkdir()
    assert "is there already, and --images names" in web.fails("coco", "--images", str(tmp_path / "others"))


def test_pictures_that_were_unpacked_by_hand_are_used(web, tiny):
    images = web.data / "lvis_v1" / "images"
    shutil.copytree(tiny[1]()[1], images)
    assert web.run("lvis_v1")[0] == 0 and "train2017.zip" not in web.asked and not images.is_symlink()
    (images / "train2017" / f"{1:012d}.jpg").unlink()
    line = web.fails("lvis_v1")
    assert f"{images / 'train2017'} has 3 of the 4 pictures of train2017.zip: move it away" in line


def test_a_link_to_nothing_is_named(web, tmp_path):
    (web.data / "coco").mkdir(parents=True)
    (web.data / "coco" / "images").symlink_to(tmp_path / "gone")
    assert "is a link to a folder that is not there: delete the link" in web.fails("coco")


def test_one_split_and_annotations_only(web):
    _, out, _ = web.run("lvis_v05", "--split", "val")
    assert web.asked == ["lvis_v0.5_val.json.zip", "val2017.zip"] or web.asked == web.asked[::-1]
    assert out[-1] == "training needs the other split too: the same command with --split train"
    _, out, _ = web.run("lvis_v05", "--annotations_only")
    assert out[-1] == "its pictures are not: the same command without --annotations_only fetches them"
    assert (web.data / "lvis_v05" / "lvis_v0.5_train.json").is_file() and "train2017.zip" not in web.asked
    assert web.run("lvis_v05")[1][-1].startswith("train with: ")


def test_archives_may_be_kept_and_are_used_again(web):
    web.run("coco", "--keep_archives")
    assert {file for file in web.files if file.endswith(".zip")} == {f"archives/{name}" for name in web.asked}
    asked = len(web.asked)
    shutil.rmtree(web.data / "coco")
    assert web.run("coco")[0] == 0 and len(web.asked) == asked and not (web.data / "archives").exists()


def test_offline_is_one_line_with_the_address_and_the_place(web):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a.zip"
        web.say(url=url)
        line = web.fails("lvis_v1", "--annotations_only", "--split", "val")
    assert f"lvis_v1_val.json.zip could not be downloaded: {url}: no connection" in line
    assert "https://www.lvisdataset.org/dataset" in line
    place = Path(re.search(r"put it to (\S+), and run", line)[1])
    place.write_bytes(b"half of it")
    assert re.search(r"it has 10 bytes instead of \d+: delete it", web.fails("lvis_v1", "--annotations_only"))
    place.write_bytes(web.site.files["/lvis_v1_val.json.zip"][::-1])
    line = web.fails("lvis_v1", "--annotations_only", "--split", "val")
    assert "it has the SHA-256" in line
    place.write_bytes(web.site.files["/lvis_v1_val.json.zip"])  # as the line says
    assert web.run("lvis_v1", "--annotations_only", "--split", "val")[0] == 0


def unknown(web, **contents):
    """Another content of archives, with nothing known about it."""
    web.site.files |= contents
    web.say(size=0, sha256="", pictures=0)


@pytest.mark.parametrize("name", ["../2.jpg", "/tmp/2.jpg", "train2017/../../2.jpg", "train2017\\2.jpg", "C:/2.jpg"])
def test_names_that_lead_out_of_the_folder_are_refused(web, name):
    unknown(web, **{"/train2017.zip": zip_of({"train2017/1.jpg": "a", name: "b"})})
    assert "leads out of the folder: not unpacked" in web.fails("coco")
    assert not (web.data / "coco" / "images" / "train2017.unpacking").exists()


def test_damaged_archives_are_one_line(web):
    whole = zip_of({"train2017/1.jpg": b"a" * 1000})
    with zipfile.ZipFile(io.BytesIO(whole)) as zipped:
        begin = zipped.infolist()[0].header_offset + 30 + len("train2017/1.jpg")
    damaged = whole[:begin] + bytes([whole[begin] ^ 255]) + whole[begin + 1 :]
    for content in (whole[:-30], b"", b"<html>no", damaged, damaged[:begin] + b"\0" * 9 + damaged[begin + 9 :]):
        unknown(web, **{"/train2017.zip": content})
        line = web.fails("coco", "--keep_archives")
        assert "train2017.zip: not a whole zip archive (" in line and "delete it and run the command again" in line
        assert not (web.data / "coco" / "images" / "train2017").exists()
        (web.data / "archives" / "train2017.zip").unlink()
    unknown(web, **{"/train2017.zip": zip_of({"other/1.jpg": "a"})})
    assert "0 files in its folder train2017, not some" in web.fails("coco")
    (web.data / "archives" / "train2017.zip").unlink()
    unknown(web, **{"/lvis_v1_val.json.zip": zip_of({"val.json": "{}"})})
    assert "it has 0 files lvis_v1_val.json, not one" in web.fails("lvis_v1", "--annotations_only")


def test_large_files_pass_through_little_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        with zipped.open("in/a.json", "w", force_zip64=True) as file:
            for _ in range(40):
                file.write(b"\0" * 10**6)
    tracemalloc.start()
    unpack.unpack_file(tmp_path / "a.zip", tmp_path / "a.json")
    unpack.unpack_folder(tmp_path / "a.zip", tmp_path / "in", files=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "a.json").stat().st_size == (tmp_path / "in" / "a.json").stat().st_size == 40 * 10**6
    assert peak < 8 * 10**6


def test_two_commands_at_once_fetch_once(web, caplog):
    caplog.set_level(logging.INFO)
    command = [sys.executable, "-m", "c2am_jax.data.download", "coco", "--out", str(web.data)]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert sorted(web.asked) == ["annotations_trainval2017.zip", "train2017.zip", "val2017.zip"]


def test_the_table_has_the_facts_of_tensorflow_datasets(monkeypatch):
    monkeypatch.delenv("C2AM_DATA_SOURCES", raising=False)
    folder = Path(tfds.__file__).parent
    published = {}
    for file in ("datasets/lvis/checksums.tsv", "url_checksums/coco.txt"):
        for line in (folder / file).read_text().splitlines():
            url, size, digits, *_ = line.split("\t")
            published[url] = int(size), digits
    found = archives.archives()
    for name, archive in found.items():
        if "v0.5" not in name:
            assert (archive.size, archive.sha256) == published[archive.url]
    assert set(archives.sets()) == set(download.TRAINING) == set(datasets.STANDARD_ANNOTATIONS)
    needed = {name for it in archives.sets().values() for split in (it.train, it.val) for name in split["pictures"]}
    assert {name for name, archive in found.items() if archive.pictures} == needed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 3", "it has tables"),
        ("archives = 3", "no attribute"),
        ('[archives."a.zip"]\nurl = "https://a/b"', "no archive a.zip; there are lvis_v1_train.json.zip, "),
        ('[archives."val2017.zip"]\nurl = "ftp://a/b"', "ftp://a/b is no https:// or http:// address"),
        ('[archives."val2017.zip"]\nurk = "https://a/b"', "urk"),
        ('[archives."val2017.zip"]\nsha256 = "12"', "sha256 '12' is not 64 hexadecimal digits"),
        ('[archives."val2017.zip"]\nsize = "12"', "whole numbers"),
        ("[", "at end of document"),
    ],
)
def test_a_table_of_the_user_that_is_wrong_is_one_line(web, text, reason):
    web.table.write_text(text)
    line = web.fails("coco")
    assert f"C2AM_DATA_SOURCES={web.table}: not a table of archives (" in line and reason in line
    assert "archives.toml shows the form" in line


def test_wrong_options_are_one_line(web, capsys):
    assert "gs://b: data is downloaded into a local folder" in main_error(capsys, "coco", "--out", "gs://b")
    file = web.data.parent / "file"
    file.write_text("")
    assert "file" in main_error(capsys, "coco", "--out", str(file / "x")) and os.path.exists(file)
    with pytest.raises(SystemExit):
        download.main(["coco", "--images", "x", "--annotations_only"])
    assert "--images names pictures" in capsys.readouterr().err


def main_error(capsys, *arguments):
    assert download.main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line
