"""The commands: one file, one function each; `mufx.cli` registers them."""
