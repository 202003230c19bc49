"""Read, check and write the settings of every command. Never imports torch."""
