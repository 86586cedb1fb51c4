"""Downloads that a config names: from an address or from the hub, resumed, unpacked, and checked against a lock."""
