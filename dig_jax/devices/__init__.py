"""Devices and processes: meshes, sharding rules, who takes part, who is stuck."""
