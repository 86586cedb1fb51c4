"""Downloads that a config names: from a URL or from the hub, resumed, unpacked, and checked against a lock."""
