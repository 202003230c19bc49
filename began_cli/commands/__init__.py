"""What a user calls: `began NAME …` runs `NAME.py:main(settings)` with the settings of `conf/NAME.yaml`."""
