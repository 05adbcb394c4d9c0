"""The native modules: for each instruction set a main module, of which `clarion.host.native` picks one,
further ones that it loads when they are needed, and a quantizer; for all of them `files` and `sampling`."""
