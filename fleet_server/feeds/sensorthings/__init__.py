"""OGC SensorThings 1.1, read: `paths` and `options` parse, `entities` maps rows, `reader` asks the database."""
