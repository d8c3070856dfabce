"""What happens in a folder: runs, pre-training, and procedures over many runs."""
