"""The message broker: an embedded one for demo and tests, and the configuration of a real mosquitto."""
