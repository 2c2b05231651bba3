"""Files on users' disks <-> scans: all that knows their formats, and nothing that knows models."""
