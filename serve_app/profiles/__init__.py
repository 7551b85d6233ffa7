"""The built-in profiles, a YAML file each."""

DEFAULT_PROFILE = "demo"
