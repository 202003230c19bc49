"""The mathematics: losses, networks and one optimisation step."""
