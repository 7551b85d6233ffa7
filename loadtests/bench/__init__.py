"""Comparisons of Paraserve with FunASR's runtimes; one command each.

All peers of a comparison get the same audio, the same number of threads and their
own best setting. Runs are interleaved and the median counts.
"""
