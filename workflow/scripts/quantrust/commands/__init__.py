"""Subcommands of the console command, one module each; `add_parser` names the function that runs it."""
