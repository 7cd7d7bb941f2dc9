"""Batch jobs: a file of prompts answered row by row, on any number of workers, resumable wherever they were killed.

Rows of the input form shards. A worker takes a shard by locking its journal, answers the rows that are not in it, and
appends each answer when it is there; a lock goes with its process, so that the shards of one that died are taken by
others, or when the same command is given again. When all rows are answered the output is put together in their order.
What a row answers depends on the row alone: on its own seed, or the one of its place.
"""

from dllm_plugins.jobs.job import Report
from dllm_plugins.jobs.job import run_job
from dllm_plugins.jobs.options import JobOptions

__all__ = ["JobOptions", "Report", "run_job"]
