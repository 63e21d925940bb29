"""MQTT adapters: what comes up from the nodes, and what goes down to them."""
