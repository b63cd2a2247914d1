"""The start of a run says where it computes and what to fix: versions that do not fit, an unused accelerator."""

import pytest

from c2am_jax import environment


@pytest.mark.parametrize(
    ("jax_version", "flax_version"),
    [
        ("0.10.1", "0.12.8"),
        ("0.11.1", "0.12.12"),
        ("0.11.2", "0.12.12"),
        ("0.12.0.1", "0.12.12"),
        ("0.12.1", "0.12.13"),
    ],
)
def test_tested_pairs_are_silent(jax_version, flax_version):
    assert environment.version_warnings(jax_version, flax_version, "gpu") == []


@pytest.mark.parametrize(
    ("jax_version", "flax_version", "said"),
    [
        ("0.10.0", "0.12.8", "outside the tested range"),
        ("0.13.0", "0.12.12", "outside the tested range"),
        ("0.10.2", "0.12.8", "training on this GPU is slow"),
        ("0.11.0", "0.12.8", "training on this GPU is slow"),
        ("0.11.1", "0.12.8", "flax 0.12.8 does not work with jax 0.11.1"),
        ("0.11.2", "0.12.9", "flax 0.12.9 does not work with jax 0.11.2"),
        ("0.10.1", "0.12.12", "flax 0.12.12 needs jax 0.11.1 or later"),
    ],
)
def test_a_pair_outside_the_range_is_one_line(jax_version, flax_version, said):
    (line,) = environment.version_warnings(jax_version, flax_version, "gpu")
    assert said in line and "\n" not in line


def test_scatter_add_is_no_trouble_of_today_on_the_cpu():
    (line,) = environment.version_warnings("0.10.2", "0.12.8", "cpu")
    assert "would be slow" in line


def bus(folder, *devices):
    for number, (vendor, device, kind) in enumerate(devices):
        place = folder / f"0000:00:{number:02}.0"
        place.mkdir()
        for name, value in (("vendor", vendor), ("device", device), ("class", kind)):
            (place / name).write_text(f"{value}\n")
    return folder


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ([], None),
        ([("0x8086", "0x1237", "0x060000")], None),
        ([("0x1ae0", "0x0042", "0x020000")], None),  # Google's network card
        ([("0x10de", "0x1aeb", "0x0c0330")], None),  # the USB controller of a graphics card
        ([("0x8086", "0x1237", "0x060000"), ("0x10de", "0x2330", "0x030200")], "NVIDIA GPU"),
        ([("0x1ae0", "0x0063", "0x120000")], "TPU"),
    ],
)
def test_accelerators_are_found_on_the_bus(tmp_path, devices, found):
    assert environment.accelerator_here(bus(tmp_path, *devices)) == found


def test_an_unused_accelerator_is_told_unless_the_user_chose_the_cpu(monkeypatch):
    monkeypatch.setattr(environment, "accelerator_here", lambda: "NVIDIA GPU")
    monkeypatch.setenv("JAX_PLATFORMS", "")
    (line,) = [text for text in environment.warnings() if "NVIDIA" in text]
    assert "c2am_jax[cuda13]" in line
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not [text for text in environment.warnings() if "NVIDIA" in text]


def test_the_devices_are_named_with_their_number():
    assert environment.devices_line().startswith("devices: 8 × cpu (cpu), jax 0.")
