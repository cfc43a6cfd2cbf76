"""Public-domain pictures from museums or lists of addresses -> a folder with credits."""
