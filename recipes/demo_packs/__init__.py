"""The recipe of the built-in demo packs; `train` is its one command.

Only this package and the tests import funasr.
"""
