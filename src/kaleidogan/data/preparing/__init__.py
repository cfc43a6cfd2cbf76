"""A heap of pictures -> shards: read, judged, cropped, scaled, written in one order."""
