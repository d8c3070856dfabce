"""Typed settings of data and tasks; each opens its problem."""
