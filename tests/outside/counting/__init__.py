"""A package of somebody else's: counting dots, as the smallest plugin of each kind."""
