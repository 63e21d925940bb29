"""Activities: plain functions over a database session that own the transaction. They know neither HTTP nor MQTT."""
