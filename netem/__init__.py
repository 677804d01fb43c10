"""Link emulation: loss, delay and cuts below TCP, where a real network has them."""
