"""What steers and watches a training, one policy a file."""
