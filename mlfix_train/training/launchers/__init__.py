"""Launchers of a sweep's runs: one after the other in this process, or in worker processes of this machine.

Clusters are reached through Hydra's launchers (``hydra/launcher=submitit_slurm``).
"""
