"""The native core, one module for each instruction set. `clarion.devices.native` picks one."""
