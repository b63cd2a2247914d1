"""Shards written by an Apache Beam pipeline; most of it runs where Beam is installed."""

import sys
from pathlib import Path

import pytest

from c2am_jax.data import builder, prepared
from c2am_jax.data.cluster import run_on_cluster
from c2am_jax.errors import UserError


def test_without_beam_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match="pip install apache-beam"):
        run_on_cluster(print, [], [])


def test_a_remote_json_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match="gs://bucket/a.json: with Beam"):
        builder.prepare("gs://bucket/a.json", tmp_path, "small", tmp_path, beam=[])


def test_a_pipeline_writes_the_same_records(tiny, tmp_path):
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed")
    annotations, images = tiny[1]()
    written = []
    for beam in (None, []):
        folder = tmp_path / str(beam)
        builder.prepare(annotations, images, "small", folder, workers=1, beam=beam)
        files = sorted(Path(prepared.folder_of("small", folder)).glob("*array_record*"))
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1] and written[0]
