"""The commands: `began NAME …` runs `NAME.py:main` with the settings of `conf/NAME.yaml`."""
