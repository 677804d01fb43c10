"""The checkpoint that ships with Lookout, for machines without weights and internet.

`googlenet-cifar10.safetensors` and its card `googlenet-cifar10.json`; nothing
here is code.
"""
