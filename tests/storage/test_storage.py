"""What the package asks of a bucket, and one line for each way in which a bucket fails."""

import sys
import threading

import pytest

from c2am_jax import files, storage
from c2am_jax.errors import UserError
from c2am_jax.files import as_path, replace_text, write_output
from c2am_jax.storage import Mirror, StorageError, check_output, check_reachable, check_writable, local_file, worked_on
from c2am_jax.training import ownership
from c2am_jax.training.ownership import FILE, Claim, Ownership


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("C2AM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_paths_in_a_bucket_do_what_those_on_a_disk_do(emulator, tmp_path):
    for folder in (as_path(tmp_path / "run"), as_path("gs://pods/run")):
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(folder / "a.json", "old")
        replace_text(folder / "a.json", "new")
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / "b.bin").write_bytes(bytes(300_000))
        assert (folder / "a.json").read_text() == "new" and len((folder / "sub" / "b.bin").read_bytes()) == 300_000
        assert (folder / "a.json").is_file() and not (folder / "c").exists() and (folder / "sub").is_dir()
        assert sorted(path.name for path in folder.glob("*")) == ["a.json", "sub"]
        assert [path.parent.name for path in folder.glob("*/b.bin")] == ["sub"]
        with local_file(folder / "a.json") as place, open(place) as file:
            assert file.read() == "new"
        (folder / "a.json").unlink()
        assert not (folder / "a.json").is_file()
    emulator.buckets["pods"].put("run/made by another", b"")  # listings are not kept from before
    assert (as_path("gs://pods/run") / "made by another").is_file()


def test_results_are_sent_when_the_work_is_done_and_not_after_an_error(emulator):
    with worked_on("gs://pods/eval/8") as place:
        (place / "pictures").mkdir()
        (place / "pictures" / "1.jpg").write_bytes(b"1")
        (place / "metrics.json").write_text("{}")
    assert emulator.names("eval/8") == ["eval/8/metrics.json", "eval/8/pictures/1.jpg"]
    with pytest.raises(RuntimeError), worked_on("gs://pods/eval/9") as place:
        (place / "metrics.json").write_text("{}")
        raise RuntimeError
    assert not emulator.names("eval/9")


def test_results_that_cannot_be_sent_stay_here(emulator, monkeypatch):
    monkeypatch.setattr(emulator, "refuse", refusing(403))
    with pytest.raises(StorageError) as raised, worked_on("gs://pods/eval/10") as place:
        (place / "metrics.json").write_text("{}")
    assert str(raised.value).endswith(f"; the files stay in {place}: copy them to gs://pods/eval/10")
    assert (place / "metrics.json").read_text() == "{}"


def test_a_mirror_begins_with_the_buckets_copy_and_sends_what_grew(emulator, cache):
    emulator.buckets["pods"].put("curves/metrics.jsonl", b"1\n")
    (cache / "runs/gs/pods/curves").mkdir(parents=True)
    (cache / "runs/gs/pods/curves/metrics.jsonl").write_text("of a run that was killed here\n")
    mirror = Mirror("gs://pods/curves")
    mirror.fetch("metrics.jsonl")
    mirror.fetch("none")
    with (mirror.folder / "metrics.jsonl").open("a") as file:
        file.write("2\n")
    (mirror.folder / "events").write_bytes(b"e")
    mirror.publish()
    assert emulator.content("curves/metrics.jsonl") == b"1\n2\n" and emulator.content("curves/events") == b"e"
    before = len(emulator.requests)
    mirror.publish()
    assert len(emulator.requests) == before


def refusing(status):
    return lambda method, path: status


@pytest.mark.parametrize(
    ("address", "status", "text"),
    [
        ("gs://nobody/run", None, "gs://nobody/run: there is no bucket nobody: correct the address, or make it with"),
        ("gs://pods/run", 403, "gs://pods/run: permission denied .*: give this account the roles Storage Object User"),
        ("gs://pods/run", 401, "gs://pods/run: no credentials that work .*: run gcloud auth application-default login"),
        ("gs://pods/run", 503, "gs://pods/run: the bucket cannot be reached .*: check the network, then run the same"),
        ("s3://pods/run", None, r"s3://pods/run: runs and prepared data are kept in local folders or gs:// buckets"),
    ],
)
def test_a_bucket_that_refuses_is_one_line_with_the_fix(emulator, monkeypatch, address, status, text):
    monkeypatch.setattr(storage, "FIRST_TRY_S", 0.5)
    monkeypatch.setattr(emulator, "refuse", refusing(status))
    with pytest.raises(StorageError, match=f"^{text}") as raised:
        check_reachable(address, run=True)
    assert "\n" not in str(raised.value)


def test_a_bucket_that_can_be_read_only_is_told_before_the_work(emulator, monkeypatch):
    monkeypatch.setattr(emulator, "refuse", lambda method, path: 403 if method == "POST" else None)
    check_reachable("gs://pods/run", run=True)
    with pytest.raises(StorageError, match="^gs://pods/run/eval: permission denied"):
        check_writable("gs://pods/run/eval")
    with pytest.raises(StorageError, match="^gs://pods/run/owner.json: permission denied"):
        Ownership(as_path("gs://pods/run")).__enter__()


def test_a_place_for_results_is_looked_at_and_nothing_is_made(tmp_path):
    (tmp_path / "file").write_text("old")
    for path, folder in (("file", False), ("new/deep/file", False), ("new/deep", True), ("", True)):
        check_output("--out", tmp_path / path, folder=folder)
    check_output("--output", "/dev/null")  # no plain file: written as it is
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"
    for path, folder, told in (
        ("file", True, "this is a file; name a folder"),
        ("", False, "this is a folder; name a file"),
        ("file/a/b", False, f"{tmp_path}/file is a file, not a folder; name another file"),
    ):
        with pytest.raises(StorageError) as raised:
            check_output("--out", tmp_path / path, folder=folder)
        assert str(raised.value) == f"--out {tmp_path / path}: {told}"


def test_a_file_that_a_user_named_is_whole_and_its_folder_made(tmp_path):
    write_output(tmp_path / "a" / "b.txt", "text")
    write_output(f"{tmp_path}/a/b.txt", b"other")
    write_output("/dev/null", "text")
    assert (tmp_path / "a" / "b.txt").read_text() == "other"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_page_in_a_bucket_that_can_be_read_only_is_told_before_the_work(emulator, monkeypatch):
    check_output("--report", "gs://pods/new/r.html")
    write_output("gs://pods/new/r.html", "page")
    assert emulator.names("new") == ["new/r.html"]
    monkeypatch.setattr(emulator, "refuse", lambda method, path: 403 if method == "POST" else None)
    with pytest.raises(StorageError, match="^gs://pods/new: permission denied"):
        check_output("--report", "gs://pods/new/r.html")


def test_the_missing_package_is_named(monkeypatch):
    files._prepare_remote.cache_clear()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r'gs:// needs the packages of the extra "gcs": pip install "c2am_jax\[gcs\]"'):
        as_path("gs://pods/run")
    files._prepare_remote.cache_clear()


def test_one_of_many_claims_at_the_same_time_wins(emulator, monkeypatch):
    monkeypatch.setattr(Claim, "alive", lambda claim: None)  # as if all ran on other machines
    monkeypatch.setattr(ownership, "LAPSE_S", 1.0)
    monkeypatch.setattr(ownership, "BEAT_S", 0.2)
    workdir = as_path("gs://pods/claimed")
    emulator.buckets["pods"].put(f"claimed/{FILE}", b"{")  # an owner that shows no sign of life
    owners, refused, start = [], [], threading.Barrier(4)

    def claim():
        owner = Ownership(workdir)
        start.wait()
        try:
            owners.append(owner.__enter__())
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(owners) == 1 and len(refused) == 3
    assert all("gs://pods/claimed: another training runs there" in text for text in refused)
    owners[0].check()
    owners[0].__exit__()
    assert not emulator.names("claimed")


def test_an_owner_that_was_taken_for_dead_writes_no_more(emulator, monkeypatch):
    monkeypatch.setattr(ownership._BucketFile, "fresh_s", 0.0)
    workdir = as_path("gs://pods/lost")
    with Ownership(workdir) as owner:
        owner.check()
        other = {**Claim.mine().__dict__, "host": "node8", "process": 13}
        emulator.buckets["pods"].put(f"lost/{FILE}", ownership._text(Claim(**other)).encode())
        with pytest.raises(UserError, match="process 13 on node8.* trains here now"):
            owner.check()
    assert b"node8" in emulator.content(f"lost/{FILE}")
