"""Typed settings of the algorithms; each builds its composition."""
