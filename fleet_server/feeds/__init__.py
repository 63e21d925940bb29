"""What other cities' software reads: OGC SensorThings and, later, files and catalogues."""
