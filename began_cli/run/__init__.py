"""What keeps a run alive: device, checkpoints, monitor."""
