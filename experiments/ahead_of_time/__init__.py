"""Compiles programs of every config for GPUs and TPUs that are not at hand.

- `__main__`: the command.
- `targets`: the devices, and meshes of them.
- `programs`: the programs of a config: training step, generate, encode, decode.
- `compiled_text`: what the text of a compiled program says about its speed.
"""
