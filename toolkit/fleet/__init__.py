"""Work for many machines, spread by dask.distributed: grids of simulations, and comparisons between hosts.

dask is an extra (`nettool[fleet]`) and takes a second to import; only `dask_client` imports it, when it is used. Start
at `grid.py` for simulations, and at `mesh.py` for hosts. docs/fleet.md says how a run is planned, and why.
"""
