"""The fleet server: ingest, calibration, pages and feeds."""
