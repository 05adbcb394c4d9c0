"""The native core: one module for each instruction set, of which `clarion.host.native` picks one, a
quantizer beside each, `files` and `sampling`."""
