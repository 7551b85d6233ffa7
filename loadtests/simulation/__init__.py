"""The capacity simulator held against a service that really runs.

python -m loadtests simulation measure --out costs.json
python -m loadtests simulation compare
python -m loadtests simulation speed --hours 1000
"""
