"""The command `paraserve`: one module a group of subcommands."""
