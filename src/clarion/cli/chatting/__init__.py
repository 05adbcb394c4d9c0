"""What `clarion chat` is made of, one subject in each file; `clarion.cli.chat` is the command."""
