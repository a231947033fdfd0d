"""The command line, and the local mesh that `kvpilot up` runs.

Contract: `cli.main` parses, runs and ends; every mistake of a user becomes one line on stderr and exit
code 2, and whatever happens no child process outlives the command. `mesh` owns the children, `table` turns
fleet state into rows, `live` shows them, `demo` compares the ways of steering. Nothing here decides how
traffic is steered.
"""
