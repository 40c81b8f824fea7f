"""A run, from settings to its folder and back: files, processes, devices, trust."""
