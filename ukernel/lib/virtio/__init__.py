"""virtio: the device side of virtio 1.2, whatever machine the device is in."""
