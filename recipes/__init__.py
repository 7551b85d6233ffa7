"""Recipes of what is committed as data: they are not part of the wheel."""
