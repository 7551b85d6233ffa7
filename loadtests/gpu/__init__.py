"""The comparison on a GPU; one command measures everything and writes its tables.

    python -m loadtests gpu compare --pack PACK --punctuation-pack PACK --seconds 3600

Peers run in turns on the same device and audio, each at its best batch size; medians
count. `--device cpu` runs the same code without a device, which tests it and
measures nothing.
"""
