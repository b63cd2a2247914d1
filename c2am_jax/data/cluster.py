"""Shards written by the workers of an Apache Beam pipeline: a cluster instead of this machine's processes."""

from collections.abc import Callable, Sequence
from typing import Any

from c2am_jax.errors import UserError


def run_on_cluster(work: Callable[[Any], None], items: Sequence[Any], options: Sequence[str]) -> None:
    """Call `work` once for every item, spread over the workers; returns when all are done.

    Args:
      work: a function of a module; what it reads and writes lies in folders that all workers see.
      items: picklable.
      options: of the pipeline, for example ``--runner=DataflowRunner``; none: Beam's own runner on this machine.

    Raises:
      UserError: Apache Beam is not installed, or the pipeline failed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError("--beam needs Apache Beam in an environment of its own: pip install apache-beam") from None
    try:
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            _ = pipeline | beam.Create(list(items)) | beam.Reshuffle() | beam.Map(work)
    except Exception as error:  # each runner has exceptions of its own
        raise UserError(f"the Beam pipeline failed: {type(error).__name__}: {error}") from error
