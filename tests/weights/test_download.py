"""Published weights come into the cache whole and verified, whatever the connection does; or one line says why not."""

import errno
import hashlib
import logging
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from loopback import Site

from c2am_jax import downloads
from c2am_jax.errors import UserError
from c2am_jax.weights.download import cache_folder, fetch
from c2am_jax.weights.sources import table

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache; no pauses, no proxies."""
    monkeypatch.setenv("C2AM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(downloads, "_BLOCK", 10_000)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "weights"


@pytest.fixture
def site():
    found = Site({"/w.safetensors": CONTENT})
    with found.served() as address:
        found.address = address
        yield found


@pytest.fixture
def named(tmp_path, monkeypatch, site):
    """``[(path, digits), ...] -> None``: makes "my:weights" a name for these files of the site."""

    def write(*files):
        lines = ['["my:weights"]', 'licence = "MIT"']
        for path, digits in files:
            lines += ['[["my:weights".files]]', f'url = "{site.address}{path}"', f'sha256_prefix = "{digits}"']
        (tmp_path / "mirror.toml").write_text("\n".join(lines))
        monkeypatch.setenv("C2AM_WEIGHTS_SOURCES", str(tmp_path / "mirror.toml"))

    write(("/w.safetensors", SHA256[:8]))
    return write


def test_a_name_is_downloaded_once_and_verified_each_time(named, site, cache, caplog):
    caplog.set_level(logging.INFO)
    path = fetch("my:weights")
    assert path == cache / "my_weights-w.safetensors" and path.read_bytes() == CONTENT
    assert re.search(rf"my:weights: 0 MB from {site.address}/w.safetensors to {cache}, licence MIT", caplog.text)
    assert fetch("my:weights") == path and len(site.requests) == 1
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch("my:weights").read_bytes() == CONTENT and len(site.requests) == 2
    assert not [file.name for file in cache.iterdir() if "partial" in file.name]


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(named, site):
    site.cut = [100_000, 50_000]
    assert fetch("my:weights").read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in site.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert site.requests[1][1]["If-Range"] == '"1"'


def test_a_killed_download_goes_on_in_the_next_run(named, site, cache, monkeypatch):
    site.cut = [10_000] * 3
    with pytest.raises(UserError, match=r"cut off after 30000 of 300000 bytes, 3 times; run the same command again"):
        fetch("my:weights")
    assert fetch("my:weights").read_bytes() == CONTENT
    assert site.requests[-1][1]["Range"] == "bytes=30000-"


def test_a_server_without_ranges_and_one_whose_file_changed_send_all_of_it(named, site):
    site.cut, site.ranges = [100_000], False
    assert fetch("my:weights").read_bytes() == CONTENT and len(site.requests) == 2
    other = CONTENT[::-1]
    site.files["/x.npz"], site.cut, site.ranges = b"old" * 1000, [2000, 0], True
    url = f"{site.address}/x.npz"
    answer = site.answer

    def changing(handler):
        answer(handler)
        site.files["/x.npz"], site.version = other, '"2"'

    site.answer = changing
    assert fetch(url).read_bytes() == other


def test_a_whole_file_that_was_never_renamed_is_not_sent_again(named, site, cache):
    cache.mkdir(parents=True)
    (cache / "my_weights-w.safetensors.partial").write_bytes(CONTENT)
    assert fetch("my:weights").read_bytes() == CONTENT and len(site.requests) == 1


def test_a_wrong_checksum_is_named_and_the_file_deleted(named, site, cache):
    named(("/w.safetensors", "0123456789abcdef"))
    with pytest.raises(UserError, match=rf"SHA-256 {SHA256} instead of 0123456789abcdef\.\.\.") as caught:
        fetch("my:weights")
    assert "\n" not in str(caught.value) and not list(cache.glob("*.partial")) + list(cache.glob("*.safetensors"))


def test_the_next_address_is_tried(named, site):
    site.files |= {"/second.pth": CONTENT, "/wrong.pth": b"other"}
    named(("/gone.safetensors", SHA256[:8]), ("/wrong.pth", SHA256[:8]), ("/second.pth", SHA256[:8]))
    assert fetch("my:weights").name == "my_weights-second.pth"
    assert [path for path, _ in site.requests] == ["/gone.safetensors", "/wrong.pth", "/second.pth"]
    fetch("my:weights")
    assert len(site.requests) == 3


def test_a_busy_server_is_asked_again(named, site, caplog):
    site.status["/w.safetensors"] = 503
    with pytest.raises(UserError, match="HTTP 503 Service Unavailable, 3 times"):
        fetch("my:weights")
    assert len(site.requests) == 3


def test_a_full_disk_is_one_line_before_and_while_writing(named, cache, monkeypatch):
    usage = downloads.shutil.disk_usage
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: usage(folder)._replace(free=1000))
    with pytest.raises(UserError, match=r"the disk is full \(my:weights needs 0 MB more .* set C2AM_CACHE"):
        fetch("my:weights")
    monkeypatch.setattr(downloads.shutil, "disk_usage", usage)

    def full(self, count):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads.Counter, "update", full)
    with pytest.raises(UserError, match=rf"{cache}: the disk is full \(No space left on device\): free some space"):
        fetch("my:weights")


def test_offline_is_one_line_with_the_file_and_its_place(tmp_path, cache, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/w.safetensors"
        with pytest.raises(UserError) as caught:
            fetch(url)
    text = str(caught.value)
    path = re.search(r"put it to (\S+), or name a file with --config\.train\.init=FILE", text)[1]
    assert "no connection" in text and url in text and "\n" not in text
    with open(path, "wb") as file:  # as the line says
        file.write(CONTENT)
    assert fetch(url).read_bytes() == CONTENT


def test_a_url_may_say_its_checksum_and_the_cache_knows_it_anyway(site, cache):
    url = f"{site.address}/w.safetensors"
    with pytest.raises(UserError, match="instead of ffffffff"):
        fetch(f"{url}#sha256=ffffffff")
    path = fetch(url)
    path.write_bytes(b"damaged")
    assert fetch(f"{url}#sha256={SHA256}").read_bytes() == CONTENT
    path.write_bytes(b"damaged")
    assert fetch(url).read_bytes() == CONTENT


def test_the_checksum_that_a_hub_says_counts(site):
    target = {"Location": f"{site.address}/w.safetensors", "X-Linked-ETag": f'"{SHA256}"'}
    site.redirects["/hub/model.safetensors"] = target
    assert fetch(f"{site.address}/hub/model.safetensors").read_bytes() == CONTENT
    site.redirects["/hub/other.safetensors"] = target | {"X-Linked-ETag": f'"{"0" * 64}"'}
    with pytest.raises(UserError, match=f"instead of {'0' * 64}"):
        fetch(f"{site.address}/hub/other.safetensors")
    site.redirects["/hub/local.safetensors"] = {"Location": "file:///etc/passwd"}
    with pytest.raises(UserError, match="HTTP 302"):
        fetch(f"{site.address}/hub/local.safetensors")


def test_two_processes_download_once(named, site, cache, monkeypatch):
    command = "from c2am_jax.weights.download import fetch; print(fetch('my:weights').name)"
    running = [subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE) for _ in range(3)]
    assert {process.communicate(timeout=60)[0] for process in running} == {b"my_weights-w.safetensors\n"}
    assert len(site.requests) == 1


def test_progress_is_told_in_megabytes(named, monkeypatch):
    counted = []
    monkeypatch.setattr(downloads, "MB", 1000)
    monkeypatch.setattr(downloads.Counter, "update", lambda self, count: counted.append(count))
    fetch("my:weights")
    assert len(counted) >= 10 and sum(counted) == 300


def test_what_is_no_name_and_no_http_address_is_refused(named, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"known as my:weight; there are coco:mask_rcnn_r50_fpn, .*, my:weights"):
        fetch("my:weight")
    for address in ("ftp://a/w.pth", "file:///etc/w.pth", "gs://bucket/w.npz"):
        with pytest.raises(UserError, match="https:// and http://"):
            fetch(address)
    with pytest.raises(UserError, match=r"weights come as \.safetensors"):
        fetch("https://a/w.zip")
    (tmp_path / "mirror.toml").write_text('["a:b"]\nfiles = 3')
    with pytest.raises(UserError, match=r"mirror\.toml: not a table of weights .*sources\.toml shows the form"):
        fetch("a:b")


def test_the_table_names_what_it_has():
    known = table()
    assert {"imagenet:resnet50", "imagenet:resnet101", "coco:mask_rcnn_r50_fpn", "coco:mask_rcnn_r50_fpn_1x"} == {
        *known
    }
    for source in known.values():
        assert source.licence and source.what and all(file.url.startswith("https://") for file in source.files)
        assert source.files[0].sha256  # what is tried first can be verified
        for file in source.files:  # PyTorch's names end in the first digits of the checksum
            digits = re.search(r"-([0-9a-f]{8})\.pth$", file.url)
            assert digits is None or digits[1] == file.sha256
    assert cache_folder().name == "weights"
