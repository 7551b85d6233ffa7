"""What an honest caller feels while others attack: `python -m loadtests attack`."""
