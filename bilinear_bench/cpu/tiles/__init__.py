"""Vector code, one file a tile: formula, arguments and emitter together."""
