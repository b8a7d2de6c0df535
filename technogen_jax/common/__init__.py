"""What every package uses: files, config fields, progress, the command line, many devices."""
