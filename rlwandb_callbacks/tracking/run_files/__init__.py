"""Reading of W&B's run files, which needs neither W&B's server nor its command line.

A run is one or more folders with a file ``run-<id>.wandb`` each. Data goes from bytes to columns:

- ``run_folders`` finds the files of a run and orders them by the time of their start.
- ``record_log`` finds the records in a file and skips those of other types without parsing them.
- ``items`` decodes keys and values of a record; ``history`` those of rows, only for the keys that are asked for.
- ``series`` puts numbers on an axis; ``media`` and ``metric_definitions`` read what their names say.
- ``offline_run`` joins the folders; its ``read_offline_run`` is the entry.
"""
