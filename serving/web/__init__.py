"""The web application: pages, the JSON interface, limits, logs, metrics."""
