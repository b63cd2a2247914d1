"""The numbers of a compiled program as lines for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from c2am_jax.wording import noun

ROWS = 12  # of each table


def summary(numbers: Mapping[str, Any]) -> str:
    """What `training.program.describe` tells, with the most important lines of each table."""
    (height, width), images = numbers["bucket"], numbers["images_per_device"]
    lines = [
        f"{numbers['program']} on {numbers['devices']}, {images} {noun(images, 'image')} of {height}x{width} per "
        f"device, {numbers['parameters'] / 1e6:.1f} M parameters train, jax {numbers['jax']}",
        f"compiled in {numbers['compile_seconds']} s; StableHLO {numbers['program_text']['stablehlo_mb']} MB, "
        f"{numbers['program_text']['constants_mb']} MB of it constants",
        _memory(numbers["memory_gib"]),
        f"work: {numbers['gflops_per_image']:.4g} GFLOP per image (products and convolutions, loops multiplied)",
        *_estimate(numbers["estimate"]),
        *_traffic(numbers["traffic"] or ()),
        *_no_estimate(numbers["no_estimate"], numbers["estimate"] is not None),
        *_buffers(numbers["buffers"]),
        *_collectives(numbers["collectives"]),
        "watched: " + ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in numbers["watched"].items()),
    ]
    return "\n".join(lines)


def _memory(memory: Mapping[str, Any]) -> str:
    named = ("arguments", "outputs", "aliased", "temporaries", "program_code")
    parts = ", ".join(f"{name.replace('_', ' ')} {memory[name]:.3f}" for name in named)
    known = "of_device" in memory
    verdict = f" of {memory['of_device']}: {'fits' if memory['fits'] else 'DOES NOT FIT'}" if known else ""
    return f"memory per device, GiB: {memory['total']:.3f}{verdict} ({parts})"


def _estimate(estimate: Mapping[str, Any] | None) -> list[str]:
    if estimate is None:
        return ["time: this compiler estimates none"]
    lines = [
        f"time, by the compiler's estimates: at least {estimate['ms']:.1f} ms ({estimate['mcycles']:.1f} Mcycles at "
        f"{estimate['clock_ghz']} GHz), at most {estimate['images_per_s_per_device']:.1f} images/s per device, "
        f"{estimate['share_of_peak']:.1%} of the peak"
    ]
    for title, rows in (("part", estimate["by_part"]), ("kind", estimate["by_kind"]), ("in other", estimate["other"])):
        lines += _table(
            (title, "ms", "Mcycles", "share"),
            ((r["name"][-90:], f"{r['ms']:.2f}", f"{r['mcycles']:.2f}", f"{r['share']:.1%}") for r in rows[: 2 * ROWS]),
        )
    loops = [row for row in estimate["loops"] if row["mcycles"] > 0.01 * estimate["mcycles"] or not row["known"]]
    trips = [f"{row['trips']}{'' if row['known'] else ' assumed'}" for row in loops]
    cells = [(r["part"], f"{r['mcycles']:.2f}", t, r["op_name"][-60:]) for r, t in zip(loops, trips, strict=True)]
    return lines + _table(("loop in", "Mcycles", "iterations", "path"), cells)


def _traffic(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = ((row["part"], row["kernels"], f"{row['gb']:.2f}") for row in rows[: 2 * ROWS])
    return _table(("part", "kernels", "GB of operands and results, at most"), cells)


def _no_estimate(rows: Sequence[Mapping[str, Any]], any_estimated: bool) -> list[str]:
    lines = ["the time leaves out what the compiler gives no estimate for:"] if any_estimated and rows else []
    title = "no estimate" if any_estimated else "costly where they are large"
    cells = ((r["opcode"], r["count"], r["times"], r["shape"], f"{r['mb']:.1f}", r["part"]) for r in rows[: 2 * ROWS])
    return lines + _table((title, "in the text", "runs", "largest result", "MB made", "part"), cells)


def _buffers(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    lines = []
    for title, rows in (("largest results", found["largest"]), ("alive at the peak", found["at_peak"])):
        lines += _table(
            (title, "MiB", "without padding", "made by", "part"),
            ((r["shape"], f"{r['mib']:.1f}", f"{r['values_mib']:.1f}", r["opcode"], r["part"]) for r in rows[:ROWS]),
        )
    return lines


def _collectives(kinds: Mapping[str, Mapping[str, int]]) -> list[str]:
    if not kinds:
        return ["collectives: none"]
    return [
        f"collectives: {kind} {found['count']}, {found['bytes'] / 1e6:.1f} MB, "
        f"{found['in_loop'] or 'none'} of them in a loop"
        for kind, found in kinds.items()
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Columns as wide as they need; nothing without rows."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[column]) for row in (header, *cells)) for column in range(len(header))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *cells)
    ]
