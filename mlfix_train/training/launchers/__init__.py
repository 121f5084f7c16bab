"""Launchers of a sweep's runs: in this process, in worker processes of this machine, or on a Ray cluster.

What Hydra calls is in ``hydra_plugins.mlfix_launchers``. SLURM is reached through Hydra's own launcher
(``hydra/launcher=submitit_slurm``).
"""
